//! A queue that follows the verdicts, under any sequence of requests, commits and ends.

use proptest::prelude::*;
use refloat_model::DeploymentId;
use refloat_model::admission::{MAX_WAITING, Pending, Urgency, Verdict, admit};

#[derive(Debug, Clone, Copy)]
enum Step {
    Ask(Urgency),
    /// The running one passes its commit.
    Commit,
    /// The running one ends.
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![Just(Urgency::Deploy), Just(Urgency::Emergency), Just(Urgency::Turn)].prop_map(Step::Ask),
        1 => Just(Step::Commit),
        2 => Just(Step::End),
    ]
}

/// What an app's task does with verdicts.
#[derive(Debug, Default)]
struct Queue {
    asked: u8,
    /// What runs, and whether it can still be cancelled.
    running: Option<(Pending, bool)>,
    waiting: Vec<Pending>,
    ended: Vec<DeploymentId>,
    began: Vec<Pending>,
}

impl Queue {
    fn follow(&mut self, step: Step) {
        match step {
            Step::Ask(urgency) => self.ask(urgency),
            Step::Commit => self.running = self.running.map(|(pending, _)| (pending, false)),
            Step::End => {
                self.ended.extend(self.running.take().map(|(pending, _)| pending.id));
                if !self.waiting.is_empty() {
                    let next = self.waiting.remove(0);
                    self.begin(next);
                }
            }
        }
        self.check();
    }

    fn ask(&mut self, urgency: Urgency) {
        let asked = Pending { id: DeploymentId([self.asked; 16]), urgency };
        self.asked += 1;
        let was_running = self.running;
        match admit(urgency, self.running, &self.waiting) {
            Verdict::Start => {
                assert!(was_running.is_none(), "two never run at once");
                self.begin(asked);
            }
            Verdict::Wait { place, superseded } => {
                self.give_up(&superseded);
                self.insert(place, asked);
            }
            Verdict::CancelRunning { place, cancelled } => {
                let (running, cancellable) = self.running.as_mut().expect("what is cancelled runs");
                assert!(*cancellable, "{running:?} is committed: nothing leads back");
                *cancellable = false;
                self.give_up(&cancelled);
                self.insert(place, asked);
            }
            Verdict::Deny(_) => {
                let full = self.waiting.len() >= MAX_WAITING;
                assert!(full, "only a full queue denies: {:?}", self.waiting);
                self.ended.push(asked.id);
            }
        }
        if urgency == Urgency::Emergency && !self.ended.contains(&asked.id) {
            let cancellable = self.running.is_some_and(|(running, open)| open && running.id != asked.id);
            assert!(!cancellable, "an emergency leaves nothing in its way that can be cancelled");
        }
    }

    fn begin(&mut self, pending: Pending) {
        self.running = Some((pending, true));
        self.began.push(pending);
    }

    fn give_up(&mut self, ids: &[DeploymentId]) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| !(ids.contains(&waiting.id) && waiting.urgency == Urgency::Deploy));
        assert_eq!(before - self.waiting.len(), ids.len(), "only waiting deploys give up their place");
        self.ended.extend(ids);
    }

    fn insert(&mut self, place: usize, pending: Pending) {
        assert!(place <= self.waiting.len(), "place {place} of {}", self.waiting.len());
        self.waiting.insert(place, pending);
    }

    fn check(&self) {
        assert!(self.waiting.len() <= 2 * MAX_WAITING + 1);
        let deploys = self.waiting.iter().filter(|p| p.urgency == Urgency::Deploy).count();
        assert!(deploys <= 1, "one deploy waits at most");
        let emergencies = self.waiting.iter().take_while(|p| p.urgency == Urgency::Emergency).count();
        let (first, rest) = self.waiting.split_at(emergencies);
        assert!(rest.iter().all(|p| p.urgency != Urgency::Emergency), "emergencies come first: {:?}", self.waiting);
        for class in [first, rest] {
            assert!(class.is_sorted_by_key(|p| p.id.0), "in the order that they were asked for: {class:?}");
        }
        let known = self.ended.len() + self.waiting.len() + usize::from(self.running.is_some());
        assert_eq!(known, usize::from(self.asked), "every request runs, waits or has ended");
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_overtaken_or_run_beside_another(steps in proptest::collection::vec(step(), 0..150)) {
        let mut queue = Queue::default();
        for step in steps {
            queue.follow(step);
        }
        while queue.running.is_some() {
            queue.follow(Step::End);
        }
        prop_assert!(queue.waiting.is_empty(), "what waits gets its turn");
        prop_assert_eq!(queue.ended.len(), usize::from(queue.asked));
    }
}
