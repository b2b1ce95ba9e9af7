//! What the system has for this process: open files, memory and processors.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

/// The memory in bytes if the system does not tell it: only Linux does, in files.
const ASSUMED_MEMORY: usize = 1 << 30;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What the system has for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    /// The limit of open files.
    pub(crate) files: usize,
    /// The memory in bytes: that of the system, or of the smallest control group around this process.
    pub(crate) memory: usize,
    /// The processors that this process may use.
    ///
    /// By its affinity, and by the quota of its control groups, rounded down. A thread more than the quota would be stopped in each period.
    pub(crate) processors: usize,
}

impl Resources {
    /// As much as no test uses up.
    #[cfg(any(test, fuzzing))]
    pub(crate) const AMPLE: Self = Self { files: 1 << 20, memory: 1 << 40, processors: 1 };

    /// The resources of this process now.
    pub(crate) fn of_system() -> Self {
        let memory = memory(|path| fs::read_to_string(path).ok()).unwrap_or(ASSUMED_MEMORY);
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { files: files(), memory, processors }
    }
}

/// The limit of open files.
#[cfg(unix)]
fn files() -> usize {
    use rustix::process::{Resource, getrlimit};

    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// Windows has no limit below its memory for them.
#[cfg(not(unix))]
fn files() -> usize {
    1 << 16
}

/// The memory in bytes of the system or of the smallest control group, by the files that `read` reads.
fn memory(read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let total = read(Path::new("/proc/meminfo")).and_then(|info| total(&info));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    // The value `max`, of a group without a limit, is no number.
    let limits = groups.lines().flat_map(limit_files).filter_map(|path| read(&path)?.trim().parse().ok());
    limits.chain(total).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(info: &str) -> Option<usize> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// The files with the limits of a group and of those around it.
///
/// A line of `/proc/self/cgroup` names the group: `0::/GROUP` (version 2) or `NUMBER:CONTROLLERS:/GROUP` (version 1).
fn limit_files(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { return vec![] };
    let (roots, file) = match controllers {
        // In a mixed hierarchy, version 2 has a directory of its own.
        "" => (&["", "unified"][..], "memory.max"),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            (&["memory"][..], "memory.limit_in_bytes")
        }
        _ => return vec![],
    };
    // In a container, the mount may begin at a group that the line does not know of: then there is only the root's file.
    let files = roots.iter().flat_map(|root| {
        let root = Path::new(CGROUPS).join(root);
        Path::new(group.trim_start_matches('/'))
            .ancestors()
            .map(move |group| root.join(group).join(file))
            .collect::<Vec<_>>()
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn memory_with(files: &[(&str, &str)]) -> Option<usize> {
        memory(|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    const HOST: (&str, &str) = ("/proc/meminfo", "MemTotal:        524288 kB\nMemFree:          1024 kB\n");

    #[test]
    fn without_control_groups_it_is_that_of_the_system() {
        assert_eq!(memory_with(&[HOST]), Some(512 * MIB));
        assert_eq!(memory_with(&[]), None);
    }

    #[test]
    fn smallest_group_around_the_process_counts() {
        let limits = |own, parent, root| {
            memory_with(&[
                HOST,
                ("/proc/self/cgroup", "0::/system.slice/relay.service\n"),
                ("/sys/fs/cgroup/system.slice/relay.service/memory.max", own),
                ("/sys/fs/cgroup/system.slice/memory.max", parent),
                ("/sys/fs/cgroup/memory.max", root),
            ])
        };
        assert_eq!(limits("134217728\n", "max\n", "max\n"), Some(128 * MIB));
        assert_eq!(limits("134217728\n", "67108864\n", "max\n"), Some(64 * MIB));
        assert_eq!(limits("max\n", "max\n", "33554432\n"), Some(32 * MIB));
        assert_eq!(limits("max\n", "max\n", "max\n"), Some(512 * MIB));
        assert_eq!(limits("9999999999\n", "max\n", "max\n"), Some(512 * MIB));
    }

    #[test]
    fn version_1_and_mounts_of_containers_are_known() {
        let groups = ("/proc/self/cgroup", "5:cpu,cpuacct:/docker/1f\n4:memory:/docker/1f\n0::/docker/1f\n");
        let limit = |file| memory_with(&[HOST, groups, (file, "16777216\n")]);
        assert_eq!(limit("/sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes"), Some(16 * MIB));
        assert_eq!(limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Some(16 * MIB));
        assert_eq!(limit("/sys/fs/cgroup/unified/docker/1f/memory.max"), Some(16 * MIB));
        assert_eq!(limit("/sys/fs/cgroup/cpu/docker/1f/memory.limit_in_bytes"), Some(512 * MIB));
    }

    #[test]
    fn this_system_has_all_of_them() {
        let Resources { files, memory, processors } = Resources::of_system();
        assert!((1..1 << 20).contains(&processors), "{processors}");
        assert!(files > 0 && memory > MIB, "{files} files, {memory} bytes");
    }
}
