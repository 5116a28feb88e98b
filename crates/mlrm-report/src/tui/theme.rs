//! Colours and glyphs: readable for colour-blind people, with 16 colours, without colour, and in
//! plain ASCII.

use ratatui::style::{Color, Modifier, Style};

use crate::color::cividis;

/// How many colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ColorDepth {
    /// None: emphasis, line patterns and glyphs carry the meaning.
    None,
    /// The 16 colours of the terminal's own palette.
    Ansi16,
    /// The 256-colour palette.
    Ansi256,
    /// 24 bit.
    #[default]
    True,
}

/// What a colour stands for; the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Both modalities together: the whole model, its total loss.
    Full,
    /// The picture.
    Visual,
    /// The text.
    Text,
    /// Neither: the other positions, other baselines.
    Other,
    /// Figures without a modality: schedule, throughput.
    Plain,
    /// The active tab, the selected item, keys.
    Accent,
    /// A good outcome.
    Good,
    /// A warning.
    Warning,
}

impl Role {
    /// The Okabe-Ito palette (Okabe and Ito 2008), told apart in all common forms of colour
    /// blindness; its blue and yellow are left out, since they fade on dark or on light grounds.
    fn rgb(self) -> (u8, u8, u8) {
        match self {
            Role::Full | Role::Good => (0, 158, 115),
            Role::Visual => (230, 159, 0),
            Role::Text => (86, 180, 233),
            Role::Other => (204, 121, 167),
            Role::Accent | Role::Plain => (86, 180, 233),
            Role::Warning => (213, 94, 0),
        }
    }

    fn ansi16(self) -> Color {
        match self {
            Role::Full | Role::Good => Color::Green,
            Role::Visual => Color::Yellow,
            Role::Text | Role::Accent | Role::Plain => Color::Cyan,
            Role::Other => Color::Magenta,
            Role::Warning => Color::LightRed,
        }
    }
}

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Its colours.
    pub colors: ColorDepth,
    /// Whether it shows Unicode's block and Braille characters.
    pub unicode: bool,
}

impl Default for Theme {
    fn default() -> Self {
        Self {
            colors: ColorDepth::True,
            unicode: true,
        }
    }
}

impl Theme {
    /// What the environment says: `NO_COLOR`, `COLORTERM`, `TERM`, and the locale's character set.
    pub fn detect() -> Self {
        Self::from_environment(|name| std::env::var(name).ok())
    }

    /// [`Theme::detect`] with the variables given.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let term = set("TERM").unwrap_or_default();
        let color_term = set("COLORTERM").unwrap_or_default();
        let colors = if set("NO_COLOR").is_some() || term == "dumb" {
            ColorDepth::None
        } else if color_term == "truecolor" || color_term == "24bit" || term.ends_with("direct") {
            ColorDepth::True
        } else if term.contains("256color") || cfg!(windows) {
            ColorDepth::Ansi256
        } else {
            ColorDepth::Ansi16
        };
        // POSIX: the first of these that is set decides.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let utf8 = locale.is_some_and(|locale| {
            let locale = locale.to_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        // The Linux console's font has no Braille.
        let unicode = (utf8 || cfg!(windows)) && term != "linux" && term != "dumb";
        Self { colors, unicode }
    }

    /// The style of a role.
    pub fn role(&self, role: Role) -> Style {
        match self.colors {
            // The terminal's own ink: legible on every ground.
            _ if role == Role::Plain => Style::new(),
            ColorDepth::None => match role {
                Role::Accent | Role::Warning => Style::new().add_modifier(Modifier::BOLD),
                _ => Style::new(),
            },
            ColorDepth::Ansi16 => Style::new().fg(role.ansi16()),
            ColorDepth::Ansi256 => Style::new().fg(indexed(role.rgb())),
            ColorDepth::True => Style::new().fg(Color::from(role.rgb())),
        }
    }

    /// Text of second rank.
    pub fn muted(&self) -> Style {
        match self.colors {
            // Bright black is legible on both grounds; `DIM` alone is invisible in some terminals.
            ColorDepth::Ansi256 | ColorDepth::True => Style::new().fg(Color::Indexed(245)),
            ColorDepth::Ansi16 | ColorDepth::None => Style::new().add_modifier(Modifier::DIM),
        }
    }

    /// Headings and figures.
    pub fn strong(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The selected tab.
    pub fn selected(&self) -> Style {
        self.role(Role::Accent)
            .add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }

    /// What the terminal can show of two glyphs.
    pub fn either(&self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }

    /// A horizontal rule's character.
    pub fn rule(&self) -> &'static str {
        self.either("─", "-")
    }

    /// Separates items of a line.
    pub fn dot(&self) -> &'static str {
        self.either("·", "|")
    }

    /// A heat map's cell for `share` of 1: its style and, where colour does not carry it, the shade.
    pub fn heat(&self, share: f64) -> (Style, &'static str) {
        let share = within_unit(share);
        let ground = match self.colors {
            ColorDepth::True => Color::from(cividis(share)),
            ColorDepth::Ansi256 => indexed(cividis(share)),
            ColorDepth::Ansi16 | ColorDepth::None => return (Style::new(), self.shade(share)),
        };
        let ink = match share > 0.5 {
            true => Color::Black,
            false => Color::White,
        };
        (Style::new().bg(ground).fg(ink), " ")
    }

    fn shade(&self, share: f64) -> &'static str {
        let shades: &[&str] = if self.unicode {
            &[" ", "░", "▒", "▓", "█"]
        } else {
            &[" ", ".", ":", "-", "=", "+", "*", "#", "@"]
        };
        let index = (share * shades.len() as f64) as usize;
        shades[index.min(shades.len() - 1)]
    }

    /// A horizontal bar of `share` of `width` cells, padded to `width`.
    pub fn bar(&self, share: f64, width: usize) -> String {
        let share = within_unit(share);
        if !self.unicode {
            let full = (share * width as f64).round() as usize;
            return "#".repeat(full) + &".".repeat(width - full);
        }
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let eighths = (share * width as f64 * 8.0).round() as usize;
        let (full, part) = (eighths / 8, PARTS[eighths % 8]);
        let used = full + usize::from(!part.is_empty());
        "█".repeat(full) + part + &" ".repeat(width - used)
    }

    /// A value's cell in a line of one row, from 0 (lowest) to 1.
    pub fn spark(&self, share: f64) -> &'static str {
        let cells: &[&str] = match self.unicode {
            true => &["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
            false => &["_", ".", "-", "=", "*", "#"],
        };
        cells[(within_unit(share) * (cells.len() - 1) as f64).round() as usize]
    }

    /// One row of a vertical bar that is `height` rows high (fractions count), `row` rows above its
    /// foot.
    pub fn column(&self, height: f64, row: usize) -> &'static str {
        let part = height - row as f64;
        if !self.unicode {
            return if part >= 0.5 { "#" } else { " " };
        }
        const PARTS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
        PARTS[(part.clamp(0.0, 1.0) * 8.0).round() as usize]
    }
}

/// A share that is one; 0 for what is no number.
fn within_unit(share: f64) -> f64 {
    match share.is_finite() {
        true => share.clamp(0.0, 1.0),
        false => 0.0,
    }
}

/// The nearest colour of the 256-colour palette's 6×6×6 cube.
fn indexed((red, green, blue): (u8, u8, u8)) -> Color {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let nearest = |value: u8| {
        let distance = |index: &usize| LEVELS[*index].abs_diff(value);
        (0..LEVELS.len()).min_by_key(distance).unwrap_or(0) as u8
    };
    Color::Indexed(16 + 36 * nearest(red) + 6 * nearest(green) + nearest(blue))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theme(variables: &[(&str, &str)]) -> Theme {
        Theme::from_environment(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    #[cfg(not(windows))]
    fn the_environment_decides() {
        let full = [
            ("TERM", "xterm-256color"),
            ("COLORTERM", "truecolor"),
            ("LANG", "en_US.UTF-8"),
        ];
        assert_eq!(
            theme(&full),
            Theme {
                colors: ColorDepth::True,
                unicode: true
            }
        );
        let no_color = [("NO_COLOR", "1"), full[0], full[1], full[2]];
        assert_eq!(
            theme(&no_color),
            Theme {
                colors: ColorDepth::None,
                unicode: true
            }
        );
        let empty_no_color = [("NO_COLOR", ""), full[0], ("LC_ALL", "C"), full[2]];
        assert_eq!(
            theme(&empty_no_color),
            Theme {
                colors: ColorDepth::Ansi256,
                unicode: false
            }
        );
        let console = [("TERM", "linux"), ("LANG", "C.UTF-8")];
        assert_eq!(
            theme(&console),
            Theme {
                colors: ColorDepth::Ansi16,
                unicode: false
            }
        );
        assert_eq!(
            theme(&[]),
            Theme {
                colors: ColorDepth::Ansi16,
                unicode: false
            }
        );
    }

    #[test]
    fn bars_fill_their_width() {
        for unicode in [true, false] {
            let theme = Theme {
                colors: ColorDepth::None,
                unicode,
            };
            for width in 0..20 {
                for share in [-1.0, 0.0, 0.01, 0.33, 0.999, 1.0, 7.0, f64::NAN] {
                    assert_eq!(theme.bar(share, width).chars().count(), width);
                }
            }
        }
        let theme = Theme::default();
        assert_eq!(theme.bar(0.5, 3), "█▌ ");
        assert_eq!(
            (
                theme.column(1.5, 0),
                theme.column(1.5, 1),
                theme.column(1.5, 2)
            ),
            ("█", "▄", " ")
        );
    }
}
