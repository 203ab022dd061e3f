//! Colours, and errors that are not a script's.

use std::io::IsTerminal;

use clap::ValueEnum;
use vmoon_lua::Report;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether standard error gets colours.
    pub(crate) fn on_stderr(self) -> bool {
        self.on(&std::io::stderr())
    }

    /// Whether standard output gets colours.
    pub(crate) fn on_stdout(self) -> bool {
        self.on(&std::io::stdout())
    }

    fn on(self, stream: &impl IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
                    && stream.is_terminal()
            }
        }
    }
}

/// The picture of an error that kept vmoon from doing anything.
pub(crate) fn failure(error: &anyhow::Error, color: bool) -> String {
    match error.downcast_ref::<vmoon_core::Error>() {
        Some(error) => Report::of_error(error).paint(color),
        None => Report { message: format!("{error:#}"), ..Report::default() }.paint(color),
    }
}
