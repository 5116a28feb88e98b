//! The order that breaks ties.

use std::collections::HashMap;

use mlrm_config::id_ranks;

/// Notes by id, ascending: by value where all ids are integers, else by code point (which is also
/// the byte order of UTF-8). Notes with equal scores are ranked in this order (method §6).
#[derive(Debug, Clone)]
pub struct IdOrder {
    /// Position of each row in the order.
    position: Vec<u32>,
}

impl IdOrder {
    /// The order of `ids`, at most `u32::MAX` of them.
    pub fn new(ids: &[String]) -> Self {
        Self {
            position: id_ranks(ids),
        }
    }

    /// Position of a row in the order, from 0.
    pub fn position(&self, row: u32) -> u32 {
        self.position[row as usize]
    }
}

/// Row of every id.
pub(crate) fn rows_by_id(ids: &[String]) -> HashMap<&str, u32> {
    ids.iter().map(String::as_str).zip(0..).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(ids: &[&str]) -> Vec<String> {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let order = IdOrder::new(&ids);
        let mut out = vec![String::new(); ids.len()];
        for (row, id) in ids.iter().enumerate() {
            out[order.position(row as u32) as usize] = id.clone();
        }
        out
    }

    #[test]
    fn integers_by_value_strings_by_code_point() {
        assert_eq!(
            sorted(&["10", "9", "-3", "007", "7"]),
            ["-3", "007", "7", "9", "10"]
        );
        assert_eq!(sorted(&["10", "9", "a"]), ["10", "9", "a"]);
        assert_eq!(sorted(&["10", "+9"]), ["+9", "10"]);
        // U+FF5E before U+1F600, although UTF-16 units sort the other way.
        assert_eq!(sorted(&["😀", "～", "é", "z"]), ["z", "é", "～", "😀"]);
        assert_eq!(
            sorted(&["18446744073709551617", "18446744073709551616"])[0],
            "18446744073709551616"
        );
    }
}
