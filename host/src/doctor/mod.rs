//! `vmoon doctor`: what works on this host, and what to do about what does not.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | `examination` | looks at the host and at every backend |
//! | `surroundings` | what of the host matters to every backend |
//! | `trial` | boots the built-in guest and times what it does |
//! | `show` | the findings as text and as JSON |

mod examination;
mod show;
mod surroundings;
mod trial;

pub(crate) use examination::run;
