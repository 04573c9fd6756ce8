//! Logging, and what else a process sets up once: structured to the journal where it is the
//! journal that reads us, else lines with a `<N>` priority on standard error.

use std::fmt;
use std::io::stderr;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::error::{Code, Error, Result};

/// Starts logging. A second start in one process changes nothing.
pub fn start() {
    let level = match std::env::var("NODEAGENT_LOG").as_deref() {
        Ok("debug") => LevelFilter::DEBUG,
        _ => LevelFilter::INFO,
    };
    // Only our own lines: what libraries log may hold what they were given.
    let ours = Targets::new().with_target("nodeagent", level);
    let registry = tracing_subscriber::registry().with(ours);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let started = match journal {
        Some(journal) => tracing::subscriber::set_global_default(registry.with(journal)),
        None => tracing::subscriber::set_global_default(
            registry.with(tracing_subscriber::fmt::layer().with_writer(stderr).event_format(Lines)),
        ),
    };
    started.unwrap_or_default();
}

/// Chooses the one TLS implementation of the process.
pub fn crypto() -> Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| Error::new(Code::Bug, "the TLS implementation was chosen before"))
}

/// `<5>text field=value`: systemd reads the priority, a person does not mind it.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 5,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
