//! Users of this host, as `/etc/passwd` names them: enough for the socket's peer and for the edge's own user.
//!
//! Deliberately absent: directory services. A user that only they know is shown by number.

use std::path::Path;

const PASSWD: &str = "/etc/passwd";

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its first group.
    pub gid: u32,
}

impl User {
    /// The user of that name, or of that number when it is one.
    #[must_use]
    pub fn find(name_or_uid: &str) -> Option<Self> {
        let text = std::fs::read_to_string(Path::new(PASSWD)).unwrap_or_default();
        find_in(&text, name_or_uid)
    }

    /// What to call the user of that number.
    #[must_use]
    pub fn name_of(uid: u32) -> String {
        match Self::find(&uid.to_string()) {
            Some(user) => user.name,
            None => format!("uid-{uid}"),
        }
    }
}

fn find_in(passwd: &str, name_or_uid: &str) -> Option<User> {
    let uid = name_or_uid.parse::<u32>().ok();
    let fits = |user: &User| match uid {
        Some(uid) => user.uid == uid,
        None => user.name == name_or_uid,
    };
    let known = passwd.lines().filter_map(line).find(fits);
    // A number needs no entry: it is its own group then.
    known.or_else(|| uid.map(|uid| User { name: format!("uid-{uid}"), uid, gid: uid }))
}

fn line(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { name, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nbroken\nrefloat-edge:x:990:980::/nonexistent:/usr/sbin/nologin\n";
        let edge = User { name: "refloat-edge".into(), uid: 990, gid: 980 };
        assert_eq!(find_in(passwd, "refloat-edge"), Some(edge.clone()));
        assert_eq!(find_in(passwd, "990"), Some(edge));
        assert_eq!(find_in(passwd, "nobody"), None);
        assert_eq!(find_in(passwd, "4000"), Some(User { name: "uid-4000".into(), uid: 4_000, gid: 4_000 }));
        assert_eq!(User::name_of(0), "root");
    }
}
