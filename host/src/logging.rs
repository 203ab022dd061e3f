//! What goes to standard error beside errors.

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;

/// Starts logging as the command line asks; warnings are always shown.
pub(crate) fn start(cli: &Cli, color: bool) -> anyhow::Result<()> {
    let format =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(color).without_time();
    if let Some(filter) = &cli.log {
        let filter = EnvFilter::try_new(filter)
            .with_context(|| format!("{filter:?} is not a filter for --log"))?;
        format.with_env_filter(filter).init();
    } else {
        let level = match cli.verbose {
            0 => LevelFilter::WARN,
            1 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        };
        format.with_target(cli.verbose > 1).with_max_level(level).init();
    }
    Ok(())
}
