//! Colours that the dashboard, the report and TensorBoard share.

/// The cividis colour map (Nuñez, Anderton and Renslow 2018): even steps in lightness, and the same
/// for people with red-green colour blindness. Linear between samples of the published table.
pub(crate) fn cividis(share: f64) -> (u8, u8, u8) {
    const SAMPLES: [u32; 9] = [
        0x00204c, 0x00306f, 0x39486b, 0x575d6d, 0x707173, 0x8a8678, 0xaa9e72, 0xd0ba60, 0xffe945,
    ];
    let at = share.clamp(0.0, 1.0) * (SAMPLES.len() - 1) as f64;
    let index = (at as usize).min(SAMPLES.len() - 2);
    let (low, high, part) = (
        rgb(SAMPLES[index]),
        rgb(SAMPLES[index + 1]),
        at - index as f64,
    );
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    (mix(low.0, high.0), mix(low.1, high.1), mix(low.2, high.2))
}

/// Red, green and blue of `0xrrggbb`.
pub(crate) fn rgb(hex: u32) -> (u8, u8, u8) {
    let [_, red, green, blue] = hex.to_be_bytes();
    (red, green, blue)
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
