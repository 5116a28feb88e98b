//! Where a training is shown.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use burn::train::Interrupter;
use mlrm_events::{Action, Event, EventSink, Stamped, Warning};
use mlrm_report::progress::ProgressLine;
use mlrm_report::tui::{Attached, Options};

/// The dashboard, or lines of text.
pub(super) struct Terminal {
    dashboard: Attached,
    lines: ProgressLine,
    warnings: mpsc::Receiver<String>,
    stays: Arc<AtomicBool>,
}

impl Terminal {
    pub(super) fn open(run_name: String, interrupter: Interrupter, stays: Arc<AtomicBool>) -> Self {
        let (warn, warnings) = mpsc::channel();
        let shown = io::stdout().is_terminal() && io::stderr().is_terminal();
        let dashboard = shown.then(|| {
            let (ask, asked) = mpsc::channel();
            let options = Options {
                run_name,
                requests: Some(ask),
                ..Options::default()
            };
            let dashboard = Attached::open(options)?;
            thread::Builder::new()
                .name("dashboard-requests".into())
                .spawn(move || {
                    for action in asked {
                        match action {
                            Action::Stop => interrupter.stop(Some("asked for in the dashboard")),
                            _ => {
                                let text =
                                    "Burn's learner can be stopped, and neither paused nor saved";
                                let _gone = warn.send(text.to_owned());
                            }
                        }
                    }
                })?;
            io::Result::Ok(dashboard)
        });
        let dashboard = match dashboard {
            Some(Err(error)) => {
                eprintln!("no dashboard: {error}");
                Attached::default()
            }
            other => other.and_then(Result::ok).unwrap_or_default(),
        };
        Self {
            dashboard,
            lines: ProgressLine::new(),
            warnings,
            stays,
        }
    }

    fn show(&mut self, event: &Stamped) {
        if self.dashboard.show(event) {
            self.lines.terminal(event);
            return;
        }
        if let Some(line) = self.lines.plain(event) {
            println!("{line}");
        }
    }

    fn close(&mut self) {
        // A terminal that is gone is no error of the training.
        let _closed = match self.stays.load(Ordering::Relaxed) {
            true => self.dashboard.wait(),
            false => self.dashboard.close(),
        };
    }
}

impl EventSink for Terminal {
    fn emit(&mut self, event: &Stamped) -> io::Result<()> {
        let warnings: Vec<String> = self.warnings.try_iter().collect();
        for message in warnings {
            let step = event.event.step();
            self.show(&Stamped::now(Event::Warning(Warning { step, message })));
        }
        self.show(event);
        Ok(())
    }

    /// Text for after the run.
    fn say(&mut self, text: &str) {
        self.close();
        println!("{text}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.close();
    }
}
