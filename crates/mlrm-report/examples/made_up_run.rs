//! Writes a made-up run and a picture of every view: `made_up_run FOLDER [STEPS]`.
//!
//! For looking at the dashboard without training: `mlrm watch FOLDER`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::path::PathBuf;

use mlrm_events::{EventLog, EventSink};
use mlrm_report::state::RunState;
use mlrm_report::tui::{App, Theme, View};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("which folder?")?);
    let steps = arguments.next().map_or(Ok(1240), |steps| steps.parse())?;
    let shape = support::Shape {
        steps,
        ..support::Shape::default()
    };
    std::fs::create_dir_all(&folder)?;
    let mut log = EventLog::create(folder.join("events.jsonl"))?;
    let events = support::run(shape);
    events.iter().try_for_each(|event| log.emit(event))?;

    let state = RunState::from_events(&events);
    for (width, height) in [(60, 15), (80, 24), (120, 40), (200, 60)] {
        for view in View::ALL {
            let mut app = App::new("posters-notellm2", Theme::default(), true);
            app.view = view;
            let name = format!("{}-{width}x{height}.svg", view.name());
            std::fs::write(
                folder.join(name),
                app.svg((width, height), &state, support::now(shape)),
            )?;
        }
    }
    Ok(())
}
