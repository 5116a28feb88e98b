//! Use of the machine, for the dashboard.

use std::time::{Duration, Instant};

use burn::data::dataloader::Progress;
use burn::train::metric::{CpuUse, Metric, MetricMetadata, Numeric, NumericEntry};
use mlrm_events::{Event, System as SystemEvent};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

/// How often the machine is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Reads host memory and processor use, at most every two seconds.
pub struct SystemProbe {
    cpu: CpuUse,
    system: System,
    process: Option<Pid>,
    last: Option<Instant>,
}

impl SystemProbe {
    /// A probe that has not looked yet.
    pub fn new() -> Self {
        let mut system = System::new();
        system.refresh_memory();
        Self {
            cpu: CpuUse::new(),
            system,
            process: get_current_pid().ok(),
            last: None,
        }
    }

    /// The machine after `step`, where it is time to look again.
    pub fn due(&mut self, step: usize) -> Option<Event> {
        if self.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return None;
        }
        self.last = Some(Instant::now());
        let percent = self.cpu_percent(step);
        Some(Event::System(SystemEvent {
            step: step as u64,
            host_memory_bytes: self.resident_bytes(),
            host_memory_total_bytes: self.system.total_memory(),
            host_cpu_percent: percent,
            device_memory_bytes: None,
            device_use_percent: None,
        }))
    }

    fn cpu_percent(&mut self, step: usize) -> f64 {
        let metadata = MetricMetadata {
            progress: Progress {
                items_processed: step,
                items_total: step,
                unit: None,
            },
            iteration: Some(step),
            lr: None,
        };
        let refreshed = self.cpu.update(&(), &metadata);
        match refreshed.ok().and_then(|_| self.cpu.value()) {
            Some(NumericEntry::Value(percent)) => percent,
            _ => f64::NAN,
        }
    }

    fn resident_bytes(&mut self) -> u64 {
        let Some(process) = self.process else {
            return 0;
        };
        let kind = ProcessRefreshKind::nothing().with_memory();
        let only = ProcessesToUpdate::Some(&[process]);
        self.system.refresh_processes_specifics(only, false, kind);
        self.system
            .process(process)
            .map_or(0, sysinfo::Process::memory)
    }
}

impl Default for SystemProbe {
    fn default() -> Self {
        Self::new()
    }
}
