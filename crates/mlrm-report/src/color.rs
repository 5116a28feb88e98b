//! Colours that the dashboard, the report and TensorBoard share.

/// The cividis colour map (Nuñez, Anderton and Renslow 2018): even steps in lightness, and the same
/// for people with red-green colour blindness. Linear between samples of the published table.
pub(crate) fn cividis(share: f64) -> (u8, u8, u8) {
    const SAMPLES: [(u8, u8, u8); 9] = [
        (0, 32, 76),
        (0, 48, 111),
        (57, 72, 107),
        (87, 93, 109),
        (112, 113, 115),
        (138, 134, 120),
        (170, 158, 114),
        (208, 186, 96),
        (255, 233, 69),
    ];
    let at = share.clamp(0.0, 1.0) * (SAMPLES.len() - 1) as f64;
    let index = (at as usize).min(SAMPLES.len() - 2);
    let (low, high, part) = (SAMPLES[index], SAMPLES[index + 1], at - index as f64);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    (mix(low.0, high.0), mix(low.1, high.1), mix(low.2, high.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heat_map_is_lighter_where_the_share_is_larger() {
        let lightness = |share: f64| {
            let (red, green, blue) = cividis(share);
            0.2126 * f64::from(red) + 0.7152 * f64::from(green) + 0.0722 * f64::from(blue)
        };
        for step in 0..100 {
            assert!(lightness(f64::from(step) / 100.0) < lightness(f64::from(step + 1) / 100.0));
        }
    }
}
