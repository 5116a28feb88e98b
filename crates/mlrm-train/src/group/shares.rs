//! Which notes of a batch each worker gets.

use std::ops::Range;

/// Deals notes that cost so much each to workers of these speeds: neighbouring notes, of which each
/// worker gets about the part of all costs that its speed is of all speeds. Where there are as many
/// notes as workers, each gets one at least.
pub fn deal(costs: &[usize], speeds: &[f64]) -> Vec<Range<usize>> {
    let (notes, workers) = (costs.len(), speeds.len());
    let of_all: f64 = speeds.iter().sum();
    let total: usize = costs.iter().sum();
    let (mut shares, mut start, mut spent, mut due) = (Vec::with_capacity(workers), 0, 0, 0.0);
    for (worker, speed) in speeds.iter().enumerate() {
        due += total as f64 * speed / of_all;
        let others = workers - worker - 1;
        let least = usize::from(start < notes);
        let most = notes.saturating_sub(others).max(start + least).min(notes);
        let mut end = start;
        // A note goes to whom the middle of it falls.
        while end < most && (end < start + least || spent as f64 + costs[end] as f64 / 2.0 < due) {
            spent += costs[end];
            end += 1;
        }
        if others == 0 {
            end = notes;
        }
        shares.push(start..end);
        start = end;
    }
    shares
}

/// How fast workers are, as far as it was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Speeds {
    /// Cost a second of each worker; all alike before the first measurement.
    per_second: Vec<f64>,
    measured: bool,
}

impl Speeds {
    /// What a new measurement counts beside all before.
    const NEW: f64 = 0.3;

    /// Of workers that were not measured yet.
    pub fn unknown(workers: usize) -> Self {
        Self {
            per_second: vec![1.0; workers],
            measured: false,
        }
    }

    /// Takes in what the shares of a batch cost, and the seconds that they took.
    pub fn measure(&mut self, costs: &[usize], seconds: &[f64]) {
        // A worker without a share, or a clock that stood still, says nothing.
        let all = costs.iter().zip(seconds);
        if all
            .clone()
            .any(|(cost, seconds)| *cost == 0 || *seconds <= 0.0)
        {
            return;
        }
        for (speed, (cost, seconds)) in self.per_second.iter_mut().zip(all) {
            let now = *cost as f64 / seconds;
            *speed = match self.measured {
                true => (1.0 - Self::NEW) * *speed + Self::NEW * now,
                false => now,
            };
        }
        self.measured = true;
    }

    /// Cost a second of each worker.
    pub fn per_second(&self) -> &[f64] {
        &self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_goes_to_one_worker_in_order() {
        let mut random = 7_u64;
        for case in 0..500_usize {
            let mut draw = |below: u64| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (random >> 33) % below
            };
            let notes = draw(40) as usize;
            let workers = 1 + draw(9) as usize;
            let costs: Vec<usize> = (0..notes).map(|_| draw(30) as usize).collect();
            let speeds: Vec<f64> = (0..workers).map(|_| 1.0 + draw(9) as f64).collect();
            let shares = deal(&costs, &speeds);
            assert_eq!(shares.len(), workers);
            let all: Vec<usize> = shares.iter().cloned().flatten().collect();
            assert_eq!(all, (0..notes).collect::<Vec<_>>(), "{case}");
            let empty = shares.iter().filter(|share| share.is_empty()).count();
            assert_eq!(empty, workers.saturating_sub(notes), "{case}: {shares:?}");
        }
    }

    #[test]
    fn shares_cost_as_much_as_workers_are_fast() {
        assert_eq!(deal(&[10; 8], &[1.0; 4]), [0..2, 2..4, 4..6, 6..8]);
        assert_eq!(deal(&[10; 8], &[3.0, 1.0]), [0..6, 6..8]);
        // Short notes first, as in a batch.
        assert_eq!(deal(&[1, 1, 1, 1, 4, 4], &[1.0; 2]), [0..4, 4..6]);
        assert_eq!(deal(&[5], &[1.0; 3]), [0..1, 1..1, 1..1]);
        assert_eq!(deal(&[], &[1.0; 2]), [0..0, 0..0]);
    }

    #[test]
    fn speeds_follow_what_was_measured() {
        let mut speeds = Speeds::unknown(2);
        speeds.measure(&[10, 0], &[1.0, 1.0]);
        assert_eq!(speeds, Speeds::unknown(2));
        speeds.measure(&[30, 10], &[1.0, 1.0]);
        assert_eq!(speeds.per_second(), [30.0, 10.0]);
        speeds.measure(&[30, 10], &[2.0, 1.0]);
        assert_eq!(speeds.per_second(), [25.5, 10.0]);
    }
}
