//! What the system says of this process, from `/proc/self`; where that is missing, so are the numbers.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// As Prometheus names them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Process {
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
}

impl Process {
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second();
        let page = rustix::param::page_size() as u64;
        Self {
            // The folder's own descriptor is one of those that are listed.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|listed| listed.count().saturating_sub(1) as u64),
            max_fds: getrlimit(Resource::Nofile).current,
            ..Self::parse(&stat, ticks, page)
        }
    }

    /// proc(5): `PID (NAME) STATE …`, fields counted from 1, the name of any bytes.
    fn parse(stat: &str, ticks: u64, page: u64) -> Self {
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let field = |number: usize| -> Option<u64> { fields.get(number - 3)?.parse().ok() };
        let cpu = field(14).zip(field(15)).map(|(user, system)| user + system);
        Self {
            cpu_seconds: cpu.map(|cpu| cpu as f64 / ticks.max(1) as f64),
            threads: field(20),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_proc_is_read_whatever_the_name_is() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 120 30 0 0 20 0 9 0 310542 3133440 394 1844";
        let process = Process::parse(stat, 100, 4096);
        assert_eq!(process.cpu_seconds, Some(1.5));
        assert_eq!(process.threads, Some(9));
        assert_eq!(process.virtual_bytes, Some(3_133_440));
        assert_eq!(process.resident_bytes, Some(394 * 4096));
        assert_eq!(Process::parse("", 100, 4096), Process::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_has_all_of_them() {
        let process = Process::now();
        assert!(process.cpu_seconds.is_some() && process.resident_bytes > Some(1 << 20));
        assert!(process.open_fds >= Some(3) && process.max_fds > process.open_fds);
    }
}
