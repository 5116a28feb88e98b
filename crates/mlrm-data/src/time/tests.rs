use super::*;

fn text(text: &str) -> Cell<'_> {
    Cell::Text(text.into())
}

fn read(unit: TimeUnit, cells: &[Cell<'_>]) -> Result<(Vec<i64>, String), String> {
    let mut column = TimeColumn::new(unit);
    let seconds = (1..)
        .zip(cells)
        .map(|(row, cell)| column.seconds(row, cell));
    let seconds = seconds.collect::<Result<Vec<i64>, _>>();
    let seconds = seconds.map_err(|problem| format!("{}; {}", problem.message, problem.mend))?;
    let notice = column.notice().map_err(|problem| problem.message)?;
    Ok((seconds, notice.unwrap_or_default()))
}

#[test]
fn units_are_found_by_size_and_said() {
    for (number, unit) in [
        (1_696_118_400, "seconds"),
        (1_696_118_400_000, "milliseconds"),
        (1_696_118_400_000_000, "microseconds"),
        (1_696_118_400_000_000_000, "nanoseconds"),
    ] {
        let decimal = number.to_string();
        for cell in [
            Cell::Integer(number),
            text(&decimal),
            Cell::Number(number as f64),
        ] {
            let (seconds, notice) = read(TimeUnit::Auto, &[cell]).unwrap();
            assert_eq!(seconds, [1_696_118_400]);
            let wanted = format!("times are {unit} (by the size of the numbers), 2023-10-01 to");
            assert!(notice.starts_with(&wanted), "{notice}");
        }
    }
    let (seconds, notice) = read(TimeUnit::Ms, &[text("1999"), text("1696118400.0")]).unwrap();
    assert_eq!(seconds, [1, 1_696_118]);
    assert!(
        notice.contains("as `data.time_unit` says") && notice.contains("cut off"),
        "{notice}"
    );
    assert_eq!(read(TimeUnit::Auto, &[]).unwrap(), (vec![], String::new()));
}

#[test]
fn iso_8601_is_read_with_and_without_a_zone() {
    for zoned in [
        "2023-10-01T02:00:00+02:00",
        "2023-10-01T00:00:00Z",
        "2023-10-01 00:00:00.900Z",
        "2023-10-01T02:00:00+0200",
        "2023-10-01 00:00:00 UTC",
    ] {
        let (seconds, notice) = read(TimeUnit::Auto, &[text(zoned)]).unwrap();
        assert_eq!(seconds, [1_696_118_400], "{zoned}");
        assert!(notice.contains("with a zone (taken to UTC)"), "{notice}");
        assert_eq!(notice.contains("cut off"), zoned.contains(".9"), "{notice}");
    }
    let local = ["2023-10-01", "2023-10-01T00:00", " 2023-10-01 00:00:00 "];
    let (seconds, notice) = read(TimeUnit::S, &local.map(text)).unwrap();
    assert_eq!(seconds, [1_696_118_400; 3]);
    assert!(notice.contains("without a zone (taken as UTC)"), "{notice}");
    let (seconds, notice) = read(TimeUnit::Auto, &[Cell::Time(7)]).unwrap();
    assert_eq!(
        (seconds, notice.contains("of the column's type")),
        (vec![7], true)
    );
}

#[test]
fn forms_are_never_mixed() {
    for (unit, cells, wanted) in [
        (
            TimeUnit::Auto,
            [text("1696118400000"), text("1696118400")],
            "`timestamp` 1696118400 is written as seconds, that of row 1 as milliseconds",
        ),
        (
            TimeUnit::Auto,
            [text("5"), text("2023-10-01")],
            "data.time_unit",
        ),
        (
            TimeUnit::Auto,
            [text("2023-10-01"), text("2023-10-01T00:00Z")],
            "with a zone, that of row 1 as ISO 8601 without",
        ),
        (
            TimeUnit::S,
            [text("2023-10-01"), text("5")],
            "write all times alike",
        ),
    ] {
        let message = read(unit, &cells).unwrap_err();
        assert!(message.contains(wanted), "{message}");
    }
    let mixed = [text("1696118400000"), text("1696118400")];
    assert_eq!(
        read(TimeUnit::Ms, &mixed).unwrap().0,
        [1_696_118_400, 1_696_118]
    );
}

#[test]
fn what_is_no_time_is_refused() {
    for (unit, cell, wanted) in [
        (TimeUnit::Auto, text("-1"), "before 1970"),
        (
            TimeUnit::Auto,
            text("1969-12-31T23:59:59.5Z"),
            "before 1970",
        ),
        (TimeUnit::S, text("1696118400000"), "after the year 9999"),
        (
            TimeUnit::Auto,
            Cell::Number(1.5),
            "floating point number 1.5",
        ),
        (TimeUnit::Auto, text("1.5"), "`timestamp` is `1.5`"),
        (TimeUnit::Auto, text("NaN"), "`timestamp` is `NaN`"),
        (
            TimeUnit::Auto,
            text("01/10/2023"),
            "no whole number and no ISO 8601",
        ),
        (
            TimeUnit::Auto,
            text("2023-10-01T00:00[Europe/Berlin]"),
            "no ISO 8601",
        ),
        (TimeUnit::Auto, text("2023-02-30"), "no ISO 8601"),
        (TimeUnit::Auto, Cell::Boolean(true), "`timestamp` is true"),
        (TimeUnit::Auto, Cell::Null, "`timestamp` is empty"),
    ] {
        let message = read(unit, &[cell]).unwrap_err();
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn days_without_hyphens_are_no_seconds() {
    let days = [text("20231001"), text("20231231")];
    let message = read(TimeUnit::Auto, &days).unwrap_err();
    assert!(
        message.contains("reads as a day without hyphens"),
        "{message}"
    );
    assert_eq!(
        read(TimeUnit::S, &days).unwrap().0,
        [20_231_001, 20_231_231]
    );
    let no_days = [text("20231001"), text("20231350")];
    assert_eq!(read(TimeUnit::Auto, &no_days).unwrap().0[1], 20_231_350);
}
