//! The memory that this process may use, as the system and its control groups say.

use std::fs;
use std::path::{Path, PathBuf};

use config::Snapshot;

/// What buffers may hold, unless the config says: this part of the memory that the process may use.
const BUFFERS_PART: u64 = 2;

/// Bytes that buffers may hold; `None` is no bound.
pub(super) fn buffer_bytes_max(snapshot: &Snapshot) -> Option<u64> {
    match snapshot.buffer_bytes_max {
        Some(max) => max,
        None => usable().map(|bytes| bytes / BUFFERS_PART),
    }
}

/// What the process may use: the machine's memory, or less where a control group says so. `None` if nothing is known.
fn usable() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_of(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let bounds = limit_files(&groups).into_iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        // `max` is no bound; neither is the first version's number near 2^63, which the machine's undercuts.
        text.trim().parse().ok()
    });
    machine.into_iter().chain(bounds).min()
}

/// proc(5): `MemTotal:       16316412 kB`.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// cgroups(7): the files that bound this process, of its own group and of each above it. `groups` is
/// `/proc/self/cgroup`: `0::/a/b` for the second version, `5:memory:/a/b` for the first.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let own = Path::new(root).join(path.trim_start_matches('/'));
        let above = own.ancestors().take_while(|group| group.starts_with(root));
        files.extend(above.map(|group| group.join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_what_it_has() {
        let check = |text, expected| assert_eq!(total_of(text), expected, "{text}");
        check(
            "MemTotal:       16316412 kB\nMemFree:  1 kB\n",
            Some(16_316_412 * 1024),
        );
        check("MemFree: 1 kB\nMemTotal: 8 kB\n", Some(8192));
        check("", None);
        check("MemTotal: much\n", None);
    }

    #[test]
    fn every_group_above_bounds_it() {
        let check = |groups, expected: &[&str]| {
            let files = limit_files(groups);
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(files, expected, "{groups}");
        };
        check(
            "0::/system.slice/evenkeel.service\n",
            &[
                "/sys/fs/cgroup/system.slice/evenkeel.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ],
        );
        // In a container the own group is the root of what is seen.
        check("0::/\n", &["/sys/fs/cgroup/memory.max"]);
        check(
            "12:cpu,cpuacct:/a\n5:memory:/docker/x\n",
            &[
                "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ],
        );
        check("", &[]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_some() {
        assert!(usable().is_some_and(|bytes| bytes > 1 << 20));
    }
}
