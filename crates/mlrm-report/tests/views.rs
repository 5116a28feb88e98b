//! Every view at every size, without a terminal.

mod support;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use mlrm_events::{
    Action, Control, EndReason, Evaluation, Event, EventLog, EventSink, EventTail, RunEnded, Split,
    Stamped,
};
use mlrm_report::follow::FollowedRun;
use mlrm_report::state::{RunState, Series};
use mlrm_report::tui::{App, ColorDepth, Effect, SweepApp, Theme, View};
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{
    Event as Input, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::{Frame, Terminal};
use support::{START, Shape, embedding_probe, now, run, started};

const SIZES: [(u16, u16); 4] = [(60, 15), (80, 24), (120, 40), (200, 60)];
/// Characters alone: colours are the theme's, which has tests of its own.
const PLAIN: Theme = Theme {
    colors: ColorDepth::None,
    unicode: true,
};

fn screen(app: &mut App, state: &RunState, now: f64, size: (u16, u16)) -> String {
    drawn(size, |frame| app.draw(frame, state, now))
}

/// What is on a screen of this size.
fn drawn((width, height): (u16, u16), draw: impl FnOnce(&mut Frame)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(draw).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = (0..height).map(|y| {
        let row: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        row.trim_end().to_owned() + "\n"
    });
    rows.collect()
}

fn app(view: View, attached: bool) -> App {
    let mut app = App::new("posters-notellm2", PLAIN, attached);
    app.view = view;
    app
}

/// What is on a screen of this size as it opens.
fn shown(view: View, attached: bool, state: &RunState, now: f64, size: (u16, u16)) -> String {
    screen(&mut app(view, attached), state, now, size)
}

fn key(code: KeyCode) -> Input {
    Input::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn letter(letter: char) -> Input {
    key(KeyCode::Char(letter))
}

fn interrupt() -> Input {
    Input::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))
}

/// A run of that many steps.
fn of_steps(steps: u64) -> Shape {
    Shape {
        steps,
        ..Shape::default()
    }
}

/// A run in which only this has happened.
fn only(event: Event) -> RunState {
    RunState::from_events(&[at(START, event)])
}

fn at(time_seconds: f64, event: Event) -> Stamped {
    Stamped {
        time_seconds,
        event,
    }
}

/// Checks what stands on a screen.
#[track_caller]
fn shows(text: &str, all_of: &[&str]) {
    for words in all_of {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// Checks what does not.
#[track_caller]
fn hides(text: &str, words: &str) {
    assert!(!text.contains(words), "{words}: {text}");
}

#[test]
fn every_view_of_a_run() {
    let shape = Shape::default();
    let state = RunState::from_events(&run(shape));
    for view in View::ALL {
        for size in SIZES {
            let text = shown(view, true, &state, now(shape), size);
            shows(&text, &[view.title(), "step 1,240 of 2,000"]);
            // The smallest and the usual size; the layouts between and above are made of the same parts.
            if [(60, 15), (120, 40)].contains(&size) {
                insta::assert_snapshot!(format!("{}_{}x{}", view.name(), size.0, size.1), text);
            }
        }
    }
}

#[test]
fn embeddings_are_shown_once_they_were_looked_at() {
    let shape = Shape::default();
    let mut state = RunState::from_events(&run(shape));
    let overview = |state: &RunState| shown(View::Overview, true, state, now(shape), (120, 40));
    hides(&overview(&state), "effective rank");
    state.apply(&embedding_probe(500));
    let text = overview(&state);
    for row in [
        ("Embeddings", "step 500"),
        ("cosine of partners", "0.8250"),
        ("cosine of others", "0.4750"),
        ("effective rank", "14.00"),
        ("picture share", "30.00 %"),
    ] {
        let line = text.lines().find(|line| line.contains(row.0));
        assert!(
            line.is_some_and(|line| line.contains(row.1)),
            "{row:?} in {text}"
        );
    }
}

#[test]
fn every_view_of_a_run_in_ascii() {
    let shape = Shape::default();
    let state = RunState::from_events(&run(shape));
    for view in View::ALL {
        let mut app = app(view, true);
        app.theme.unicode = false;
        let text = screen(&mut app, &state, now(shape), (80, 24));
        assert!(text.is_ascii(), "{text}");
        insta::assert_snapshot!(format!("{}_ascii", view.name()), text);
    }
}

#[test]
fn every_view_of_an_empty_run() {
    let state = RunState::default();
    for view in View::ALL {
        let name = format!("empty_{}", view.name());
        insta::assert_snapshot!(name, shown(view, false, &state, START, (80, 24)));
    }
}

#[test]
fn every_view_of_a_run_with_one_event() {
    let step = run(of_steps(1)).swap_remove(1).event;
    for event in [started(Shape::default()), step] {
        let name = event.name().to_owned();
        let state = only(event);
        for view in View::ALL {
            let text = shown(view, false, &state, START + 1.0, (80, 24));
            shows(&text, &[view.title()]);
            assert_eq!(text.lines().count(), 24, "{text}");
            if view == View::Overview {
                insta::assert_snapshot!(format!("one_{name}_overview"), text);
            }
        }
    }
}

#[test]
fn no_size_and_no_choice_breaks_it() {
    let big = Shape::default();
    let states = [
        RunState::default(),
        RunState::from_events(&run(of_steps(1))),
        RunState::from_events(&run(big)),
        RunState::from_events(&run(Shape { ended: true, ..big })),
    ];
    for state in &states {
        for view in View::ALL {
            for theme in [
                PLAIN,
                Theme::default(),
                Theme {
                    colors: ColorDepth::Ansi16,
                    unicode: false,
                },
            ] {
                let mut app = App::new("a run with a rather long name, 小红书", theme, false);
                app.view = view;
                for (width, height) in [
                    (1, 1),
                    (0, 0),
                    (59, 15),
                    (60, 14),
                    (61, 16),
                    (99, 17),
                    (100, 18),
                    (333, 99),
                ] {
                    screen(&mut app, state, now(big), (width, height));
                    for letter in "el+amM[]f?xe+l".chars() {
                        app.handle(&key(KeyCode::Char(letter)), state);
                        screen(&mut app, state, now(big), (width, height));
                    }
                    app.handle(&key(KeyCode::PageDown), state);
                    app.handle(&key(KeyCode::End), state);
                    screen(&mut app, state, now(big), (width, height));
                }
            }
        }
    }
}

#[test]
fn too_small_says_so() {
    let text = shown(View::Overview, true, &RunState::default(), START, (40, 10));
    shows(
        &text,
        &["mlrm needs 60x15 cells,", "this terminal has 40x10."],
    );
}

#[test]
fn help_shows_every_key() {
    for size in [(60, 15), (80, 24)] {
        let mut app = app(View::Overview, true);
        app.handle(&letter('?'), &RunState::default());
        let text = screen(&mut app, &RunState::default(), START, size);
        shows(&text, &["save and stop after this step"]);
        if size == (80, 24) {
            insta::assert_snapshot!("help_80x24", text);
        }
    }
}

#[test]
fn keys_ask_an_attached_trainer() {
    let mut state = RunState::from_events(&run(of_steps(3)));
    let mut app = app(View::Overview, true);
    assert_eq!(app.handle(&letter(' '), &state), Effect::Ask(Action::Pause));
    let paused = Control {
        step: 3,
        action: Action::Pause,
    };
    state.apply(&at(START + 9.0, Event::Control(paused)));
    for (input, effect, why) in [
        (letter(' '), Effect::Ask(Action::Resume), ""),
        (letter('s'), Effect::Ask(Action::Save), ""),
        (letter('x'), Effect::Redraw, "once is a question"),
        (letter('e'), Effect::Redraw, "any other key is no"),
        (letter('x'), Effect::Redraw, ""),
        (letter('x'), Effect::Ask(Action::Stop), ""),
        (interrupt(), Effect::Ask(Action::Stop), ""),
        (letter('q'), Effect::Close, ""),
    ] {
        assert_eq!(app.handle(&input, &state), effect, "{input:?} {why}");
    }
}

#[test]
fn a_watched_run_takes_no_requests() {
    let shape = of_steps(3);
    let state = RunState::from_events(&run(shape));
    let mut app = app(View::Overview, false);
    for key in [' ', 's', 'x'] {
        assert_eq!(app.handle(&letter(key), &state), Effect::Redraw);
        let text = screen(&mut app, &state, now(shape), (120, 40));
        shows(&text, &["this view is read-only"]);
    }
    let text = screen(&mut app, &state, now(shape), (120, 40));
    shows(&text, &["(read-only)"]);
    assert_eq!(app.handle(&interrupt(), &state), Effect::Close);
}

#[test]
fn keys_and_mouse_turn_pages() {
    let state = RunState::from_events(&run(of_steps(5)));
    let mut app = app(View::Overview, true);
    for view in View::ALL.iter().skip(1).chain([&View::Overview]) {
        app.handle(&key(KeyCode::Tab), &state);
        assert_eq!(app.view, *view);
    }
    app.handle(&key(KeyCode::BackTab), &state);
    assert_eq!(app.view, View::Config);
    app.handle(&letter('3'), &state);
    assert_eq!(app.view, View::Retrieval);

    let text = screen(&mut app, &state, START, (120, 40));
    for view in View::ALL {
        let column = text.lines().next().unwrap().find(view.title()).unwrap() as u16;
        let kind = MouseEventKind::Down(MouseButton::Left);
        let click = MouseEvent {
            kind,
            column,
            row: 0,
            modifiers: KeyModifiers::NONE,
        };
        app.handle(&Input::Mouse(click), &state);
        assert_eq!(app.view, view);
    }
}

#[test]
fn the_log_is_filtered_searched_and_scrolled() {
    let shape = Shape::default();
    let state = RunState::from_events(&run(shape));
    let mut app = app(View::Log, true);
    let mut after = |inputs: &[Input]| {
        for input in inputs {
            app.handle(input, &state);
        }
        screen(&mut app, &state, now(shape), (120, 40))
    };
    let notable = after(&[]);
    shows(&notable, &["checkpoint saved"]);
    hides(&notable, "loss");
    let warnings = after(&[letter('f')]);
    shows(&warnings, &["gradient norm 41.8"]);
    hides(&warnings, "checkpoint saved");
    shows(&after(&[letter('f'), letter('f')]), &["loss"]);

    let typed: Vec<Input> = "/step-1100q".chars().map(letter).collect();
    after(&typed);
    let found = after(&[key(KeyCode::Backspace), key(KeyCode::Enter)]);
    shows(&found, &["1 of 1,463 events"]);

    let oldest = after(&[key(KeyCode::Esc), key(KeyCode::End)]);
    let line = oldest.lines().nth(4);
    assert!(
        line.is_some_and(|line| line.len() > 20),
        "never past the end"
    );
    shows(&after(&[key(KeyCode::Home)]), &["1,240"]);
}

#[test]
fn a_silent_run_and_an_ended_one_say_so() {
    for (ended, words) in [(false, "silent for 1 h 00 m"), (true, "✓ completed")] {
        let shape = Shape {
            ended,
            ..of_steps(40)
        };
        let state = RunState::from_events(&run(shape));
        let text = shown(View::Overview, false, &state, now(shape) + 3600.0, (80, 24));
        shows(&text, &[words]);
        assert!(!ended || !text.contains("left"), "{text}");
    }
}

/// Time that this thread spent on a processor, so that other tests and programs do not count; where
/// the system does not tell, the time of day.
fn processor_seconds() -> f64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = spent.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    match nanoseconds {
        Some(nanoseconds) if nanoseconds > 0.0 => nanoseconds * 1e-9,
        _ => BEGIN.get_or_init(Instant::now).elapsed().as_secs_f64(),
    }
}

/// A run of 100,000 events is read, folded and drawn within a second (in an optimised build), in
/// bounded memory.
#[test]
fn a_big_run_opens_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let shape = Shape {
        steps: 90_000,
        total_steps: 90_000,
        every: 500,
        ended: true,
        seed: 1,
    };
    let events = run(shape);
    assert!(events.len() >= 98_000, "{}", events.len());
    let mut log = EventLog::create(&path).unwrap();
    events.iter().for_each(|event| log.emit(event).unwrap());

    let begin = processor_seconds();
    let mut state = RunState::default();
    let batch = EventTail::new(&path).poll().unwrap();
    batch.events.iter().for_each(|event| state.apply(event));
    let text = shown(View::Overview, false, &state, now(shape), (200, 60));
    let seconds = processor_seconds() - begin;
    assert_eq!(state.events as usize, events.len());
    shows(&text, &["step 90,000 of 90,000"]);
    // Told, not judged: other work on the machine counts in it.
    println!("{seconds:.2} s");
    assert!(state.train.loss.buckets().len() <= Series::CAPACITY);
    assert!(state.evaluations.len() <= 256 && state.log().count() <= 2500);
    let lowest = events.iter().filter_map(|event| match &event.event {
        Event::TrainStep(step) => Some(step.gradient_norm),
        _ => None,
    });
    let highest = lowest.fold(f64::NEG_INFINITY, f64::max);
    let kept = state.train.gradient_norm.buckets().iter();
    let kept = kept.fold(f64::NEG_INFINITY, |most, bucket| most.max(bucket.max));
    assert_eq!(kept, highest, "the spike is kept");
}

#[test]
fn the_course_is_kept_once_the_test_is_measured() {
    let shape = Shape::default();
    let mut state = RunState::from_events(&run(shape));
    let mut test = state.evaluations.last().unwrap().clone();
    let validation = shown(View::Retrieval, true, &state, now(shape), (120, 40));
    hides(&validation, "╍ validation");
    (test.split, test.step) = (Split::Test, shape.steps);
    state.apply(&at(now(shape), Event::Evaluation(test)));
    let text = shown(View::Retrieval, true, &state, now(shape), (120, 40));
    shows(&text, &["test, 412 queries in 3,255 notes  ╍ validation"]);
    insta::assert_snapshot!("retrieval_tested", text);
}

#[test]
fn each_list_keeps_its_own_place() {
    let state = RunState::from_events(&run(Shape::default()));
    let mut app = app(View::Log, false);
    let size = (80, 24);
    screen(&mut app, &state, START, size);
    app.handle(&key(KeyCode::End), &state);
    let log = screen(&mut app, &state, START, size);
    // The config is the shorter list.
    app.view = View::Config;
    screen(&mut app, &state, START, size);
    app.handle(&key(KeyCode::End), &state);
    let config = screen(&mut app, &state, START, size);
    app.view = View::Log;
    assert_eq!(screen(&mut app, &state, START, size), log);
    app.view = View::Config;
    assert_eq!(screen(&mut app, &state, START, size), config);
}

#[test]
fn a_small_overview_names_the_metric_that_it_shows() {
    let overview = |metrics: &[(&str, f64)]| {
        let metrics = metrics.iter().map(|&(name, value)| (name.into(), value));
        let evaluation = Evaluation {
            step: 4,
            slices: [("all".to_owned(), metrics.collect())].into(),
            ..Evaluation::default()
        };
        let state = only(Event::Evaluation(evaluation));
        shown(View::Overview, false, &state, START, (60, 15))
    };
    let of_100 = overview(&[("recall@100", 0.9), ("mrr", 0.2)]);
    shows(&of_100, &["Recall@100", "90.00 %"]);
    hides(&of_100, "Recall@10 ");
    let of_mrr = overview(&[("mrr", 0.2), ("ndcg@10", 0.3)]);
    shows(&of_mrr, &["MRR"]);
    hides(&of_mrr, "Recall");
    let of_10 = overview(&[("recall@100", 0.9), ("recall@10", 0.4)]);
    shows(&of_10, &["Recall@10 ", "40.00 %"]);
}

#[test]
fn a_run_that_diverged_is_drawn_as_it_is() {
    let mut events = run(Shape::default());
    for stamped in &mut events {
        match &mut stamped.event {
            Event::TrainStep(step) if step.step > 20 => {
                (step.loss, step.gradient_norm) = (f64::NAN, f64::INFINITY);
                (step.temperature_logit, step.gate_mean) = (f64::NAN, Some(f64::NAN));
            }
            Event::Evaluation(evaluation) => {
                for values in evaluation.slices.values_mut() {
                    values.values_mut().for_each(|value| *value = f64::NAN);
                }
                evaluation.uniformity = Some(f64::NAN);
                evaluation.alignment = Some(f64::INFINITY);
            }
            Event::Saliency(saliency) => saliency
                .layers
                .iter_mut()
                .for_each(|layer| *layer = [f64::NAN; 3]),
            _ => {}
        }
    }
    let state = RunState::from_events(&events);
    for view in View::ALL {
        for size in [(60, 15), (120, 40), (200, 60)] {
            let shown = shown(view, false, &state, START, size);
            if view == View::Retrieval {
                shows(&shown, &["NaN"]);
            }
        }
    }
}

#[test]
fn lines_that_cannot_be_read_are_counted_on_the_overview() {
    let mut state = RunState::from_events(&run(Shape::default()));
    state.unreadable_lines = 1234;
    let shown = shown(View::Overview, false, &state, START, (120, 40));
    shows(&shown, &["1,234 unreadable lines in the log"]);
}

/// Runs of a sweep in a folder: done, failed, running, refused before it began, and waiting.
fn sweep(home: &Path) -> Vec<FollowedRun> {
    let shape = Shape::default();
    let write = |name: &str, shape: Shape, ended: Option<RunEnded>| {
        let folder = home.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut log = EventLog::create(folder.join("events.jsonl")).unwrap();
        let ended = ended.map(|ended| at(now(shape), Event::RunEnded(ended)));
        for event in run(shape).iter().chain(&ended) {
            log.emit(event).unwrap();
        }
    };
    let done = Shape {
        steps: 2000,
        ended: true,
        ..shape
    };
    write("text/seed-1", done, None);
    let failed = RunEnded {
        step: 300,
        reason: EndReason::Failed,
        message: Some("the loss is NaN at step 300: the run has diverged".into()),
        ..RunEnded::default()
    };
    write("text/seed-2", of_steps(300), Some(failed));
    write("all/seed-1", Shape { seed: 2, ..shape }, None);
    std::fs::create_dir_all(home.join("all")).unwrap();
    let said = "preparing\nerror: no such\n file\n";
    std::fs::write(home.join("all/seed-2.log"), said).unwrap();
    let names = [
        "text/seed-1",
        "text/seed-2",
        "all/seed-1",
        "all/seed-2",
        "all/seed-3",
    ];
    let mut runs: Vec<FollowedRun> = names
        .iter()
        .map(|name| FollowedRun::of_sweep(name.replace("/seed-", " seed "), &home.join(name)))
        .collect();
    let began = runs.iter_mut().map(|run| run.poll());
    assert_eq!(began.filter(|began| *began).count(), 4);
    runs
}

#[test]
fn all_runs_of_a_sweep_are_on_one_screen() {
    let home = tempfile::tempdir().unwrap();
    let runs = sweep(home.path());
    let time = now(Shape::default());
    let ascii = Theme {
        unicode: false,
        ..PLAIN
    };
    for (size, theme) in [((60, 15), PLAIN), ((120, 20), PLAIN), ((90, 16), ascii)] {
        let mut app = SweepApp::new("gates", theme, false);
        let text = drawn(size, |frame| app.draw(frame, &runs, time));
        let counts = ["1 done", "1 running", "2 failed", "1 waiting"];
        shows(&text, &counts);
        shows(&text, &["text seed 1"]);
        assert!(theme.unicode || text.is_ascii(), "{text}");
        insta::assert_snapshot!(format!("sweep_{}x{}", size.0, size.1), text);
    }
    // A list that is longer than the screen follows what is chosen; nothing breaks at any size.
    let many: Vec<FollowedRun> = (0..200)
        .map(|run| FollowedRun::of_sweep(format!("run {run}"), &home.path().join("none")))
        .collect();
    let mut app = SweepApp::new("a sweep with a rather long name, 小红书", PLAIN, true);
    for size in [(0, 0), (1, 1), (60, 15), (61, 16), (333, 99)] {
        for (code, wanted) in [(KeyCode::End, "run 199"), (KeyCode::Home, "run 0")] {
            app.handle(&key(code), &many);
            let text = drawn(size, |frame| app.draw(frame, &many, time));
            assert!(
                size.0 < 60 || text.contains(&format!(" {wanted} ")),
                "{text}"
            );
        }
        drawn(size, |frame| {
            SweepApp::new("", PLAIN, false).draw(frame, &[], time)
        });
    }
}

#[test]
fn a_run_of_a_sweep_is_opened_and_left() {
    let home = tempfile::tempdir().unwrap();
    let runs = sweep(home.path());
    let mut app = SweepApp::new("gates", PLAIN, false);
    let time = now(Shape::default());
    let shown = |app: &mut SweepApp| drawn((120, 40), |frame| app.draw(frame, &runs, time));
    app.handle(&key(KeyCode::Down), &runs);
    shows(&shown(&mut app), &["failed: the loss is NaN at step 300"]);
    app.handle(&key(KeyCode::End), &runs);
    app.handle(&key(KeyCode::Up), &runs);
    shows(&shown(&mut app), &["failed: no such"]);
    app.handle(&key(KeyCode::Up), &runs);
    assert_eq!(app.handle(&key(KeyCode::Enter), &runs), Effect::Redraw);
    let open = shown(&mut app);
    shows(&open, &["1 Overview", "all seed 1"]);
    shows(&open, &["step 1,240 of 2,000", "esc all runs"]);
    // What a person types in the run is the run's: escape first clears what is searched for.
    let typed = ['5', '/', 'q'].map(letter).into_iter();
    for input in typed.chain([KeyCode::Enter, KeyCode::Esc].map(key)) {
        assert_eq!(app.handle(&input, &runs), Effect::Redraw);
    }
    shows(&shown(&mut app), &["Events (notable)"]);
    app.handle(&key(KeyCode::Esc), &runs);
    shows(&shown(&mut app), &["5 runs"]);
    let asked = app.handle(&letter('x'), &runs);
    assert_eq!(asked, Effect::None, "it is only watched");
    assert_eq!(app.handle(&letter('q'), &runs), Effect::Close);

    let mut own = SweepApp::new("gates", PLAIN, true);
    assert_eq!(own.handle(&letter('x'), &runs), Effect::Redraw);
    assert_eq!(own.handle(&letter('x'), &runs), Effect::Ask(Action::Stop));
    own.handle(&key(KeyCode::Enter), &runs);
    assert_eq!(own.handle(&interrupt(), &runs), Effect::Ask(Action::Stop));
    assert_eq!(app.handle(&interrupt(), &runs), Effect::Close);
}
