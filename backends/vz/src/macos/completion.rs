//! The framework's answers.

use std::cell::Cell;

use block2::RcBlock;
use objc2::rc::Retained;
use objc2_foundation::NSError;

/// A handler for an error or nil. `hear` is called at most once, and dropped if the framework
/// forgets the handler.
pub(super) fn handler(
    hear: impl FnOnce(Result<(), String>) + 'static,
) -> RcBlock<dyn Fn(*mut NSError)> {
    let hear = Cell::new(Some(hear));
    RcBlock::new(move |error: *mut NSError| {
        if let Some(hear) = hear.take() {
            // SAFETY: the framework passes nil or an error that is valid during the call.
            hear(unsafe { error.as_ref() }.map_or(Ok(()), |error| Err(words(error))));
        }
    })
}

/// What an error says.
pub(super) fn words(error: &NSError) -> String {
    let mut words = error.localizedDescription().to_string();
    if let Some(reason) = error.localizedFailureReason() {
        let reason = reason.to_string();
        if !words.contains(&reason) {
            words.push_str(": ");
            words.push_str(&reason);
        }
    }
    format!("{words} ({} {})", error.domain(), error.code())
}

/// The words of an error that is owned, for `map_err`.
#[allow(clippy::needless_pass_by_value, reason = "the shape of a result's error")]
pub(super) fn owned_words(error: Retained<NSError>) -> String {
    words(&error)
}
