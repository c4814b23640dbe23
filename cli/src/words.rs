//! Words of a command line whose first one may be an app: `[APP] rN`, `[APP] NAME=VALUE…`.

use crate::args::release;
use crate::failure::Failure;

/// An app, when one was typed, and the releases behind it.
pub(crate) type AppAndReleases = (Option<String>, Vec<u32>);

/// `[APP] rN…`: exactly so many releases, the app before them.
///
/// # Errors
/// When a word is no release, or there are too many or too few.
pub(crate) fn app_and_releases(words: &[String], count: usize) -> Result<AppAndReleases, Failure> {
    let apps = words.len().checked_sub(count).filter(|apps| *apps <= 1);
    let (apps, releases) = words.split_at(apps.ok_or_else(|| Failure::usage("Say which release: r1, r2, …"))?);
    let releases = releases.iter().map(|word| release(word)).collect::<Result<_, _>>().map_err(Failure::usage)?;
    Ok((apps.first().cloned(), releases))
}

/// `[APP] [rN]`: a last word that is written as a release is one.
///
/// # Errors
/// When there are two words and the last is no release.
pub(crate) fn app_and_maybe_release(words: &[String]) -> Result<(Option<String>, Option<u32>), Failure> {
    match words {
        [] => Ok((None, None)),
        [word] if word.starts_with('r') && release(word).is_ok() => Ok((None, release(word).ok())),
        [app] => Ok((Some(app.clone()), None)),
        words => {
            let (app, releases) = app_and_releases(words, 1)?;
            Ok((app, releases.first().copied()))
        }
    }
}

/// `[APP] WORD…`: the first word is the app when more follow and it is not one of them itself.
pub(crate) fn app_and_words(
    words: Vec<String>,
    app: Option<String>,
    is_word: impl Fn(&str) -> bool,
) -> (Option<String>, Vec<String>) {
    if app.is_some() || words.len() < 2 || is_word(&words[0]) {
        return (app, words);
    }
    let mut words = words.into_iter();
    (words.next(), words.collect())
}

/// Whether it is written as the names of apps are: lower case, digits and hyphens.
pub(crate) fn is_app_name(word: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !word.is_empty() && word.len() <= 40 && !word.starts_with('-') && word.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_release_is_the_last_word_and_the_app_may_be_left_out() {
        assert_eq!(app_and_releases(&words("r3"), 1), Ok((None, vec![3])));
        assert_eq!(app_and_releases(&words("shop r3"), 1), Ok((Some("shop".to_owned()), vec![3])));
        assert_eq!(app_and_releases(&words("shop r3 r4"), 2), Ok((Some("shop".to_owned()), vec![3, 4])));
        for (text, count) in [("", 1), ("shop", 1), ("r3 shop", 1), ("r3", 2), ("a b r3", 1)] {
            assert!(app_and_releases(&words(text), count).is_err(), "{text}");
        }
    }

    #[test]
    fn to_show_the_serving_release_neither_is_needed() {
        let shop = || Some("shop".to_owned());
        for (text, app, release) in
            [("", None, None), ("r3", None, Some(3)), ("shop", shop(), None), ("shop r3", shop(), Some(3))]
        {
            assert_eq!(app_and_maybe_release(&words(text)), Ok((app, release)), "{text}");
        }
        assert!(app_and_maybe_release(&words("shop blog")).is_err());
    }

    #[test]
    fn the_first_word_is_the_app_only_when_it_cannot_be_anything_else() {
        let assigned = |word: &str| word.contains('=') || !is_app_name(word);
        for (text, app, rest) in [
            ("A=1 B=2", None, "A=1 B=2"),
            ("shop A=1", Some("shop"), "A=1"),
            ("shop", None, "shop"),
            ("NAME A=1", None, "NAME A=1"),
        ] {
            let (found, left) = app_and_words(words(text), None, assigned);
            assert_eq!((found.as_deref(), left.join(" ").as_str()), (app, rest), "{text}");
        }
    }
}
