//! What the system says of this process. Only Linux says it in files.

use std::time::Duration;

/// The process. What the system does not tell is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// User and system time.
    pub(super) cpu: Option<Duration>,
    /// Resident memory in bytes.
    pub(super) resident: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) max_files: Option<u64>,
    /// When the process began, in seconds since 1970.
    pub(super) started: Option<f64>,
}

impl Process {
    /// The process now. It began as an `earlier` look has found, as that does not change.
    pub(super) fn now(earlier: Self) -> Self {
        system::now(earlier)
    }

    /// The first look.
    pub(super) fn first() -> Self {
        Self::now(Self { started: system::started(), ..Self::default() })
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::time::Duration;

    use rustix::param::{clock_ticks_per_second, page_size};
    use rustix::process::{Resource, getrlimit};
    use rustix::time::{ClockId, clock_gettime};

    use super::Process;

    pub(super) fn now(earlier: Process) -> Process {
        Process {
            cpu: Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok(),
            resident: resident(),
            open_files: open_files(),
            max_files: getrlimit(Resource::Nofile).current,
            started: earlier.started,
        }
    }

    fn resident() -> Option<u64> {
        let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
        pages.checked_mul(page_size() as u64)
    }

    /// The number of open files. To list them would take milliseconds with 10,000 connections.
    fn open_files() -> Option<u64> {
        match fs::metadata("/proc/self/fd").ok()?.len() {
            // Older than Linux 6.2.
            0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
            count => Some(count),
        }
    }

    /// The start in ticks since the system's, and that since 1970.
    ///
    /// `/proc/stat` has the start of the system, too, but a service manager may hide it (`ProcSubset=pid`).
    pub(super) fn started() -> Option<f64> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in brackets, may have spaces. The start is the 22nd field, and the second is the name.
        let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
        let [now, since_boot] = [ClockId::Realtime, ClockId::Boottime].map(seconds);
        Some(now - since_boot + ticks as f64 / clock_ticks_per_second() as f64)
    }

    fn seconds(clock: ClockId) -> f64 {
        let time = clock_gettime(clock);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::Process;

    pub(super) fn now(earlier: Process) -> Process {
        earlier
    }

    pub(super) fn started() -> Option<f64> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the start of a process is a time of the wall clock")]
    fn this_process_is_known() {
        let Process { cpu, resident, open_files, max_files, started } = Process::first();
        assert!(cpu.unwrap() > Duration::ZERO);
        assert!((1 << 20..1 << 40).contains(&resident.unwrap()), "{resident:?}");
        let listed = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        // Other tests open files meanwhile.
        assert!(open_files.unwrap().abs_diff(listed) < 500 && open_files.unwrap() > 0, "{open_files:?}, {listed}");
        assert!(max_files.is_none_or(|most| most >= open_files.unwrap()));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        // A test run takes less than a day.
        assert!((now - 86_400.0..now + 1.0).contains(&started.unwrap()), "{started:?}");
    }
}
