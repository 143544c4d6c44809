//! Paths that the process opens later than the config: whether a file may be there, as far as that shows without trying.

use super::PlacedBind;
use crate::diagnostic::{Kind, Report, Span};
use crate::snapshot::{AccessLog, Bind, LogTarget};
use crate::{Found, Source};

/// A file that is to be made, or written to: its folder has to be there. `what`: what it is for.
pub(super) fn check_written(
    path: &str,
    what: &str,
    span: Span,
    source: &dyn Source,
    report: &mut Report,
) {
    if source.found(path) == Found::Folder {
        let message = format!("{what}: `{path}` is a folder, where a file is expected");
        report.error(Kind::File, span, message);
        return;
    }
    let folder = match path.rsplit_once('/') {
        None => return,
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
    };
    match source.found(folder) {
        Found::Nothing => {
            let message = format!("{what}: there is no folder `{folder}`");
            let help = "it has to be there, for the user that evenkeel runs as to write to";
            report.error_help(Kind::File, span, message, help);
        }
        Found::File => {
            let message = format!("{what}: `{folder}` is not a folder");
            report.error(Kind::File, span, message);
        }
        Found::Unknown | Found::Folder => {}
    }
}

/// A file that is to be read.
pub(super) fn check_read(
    path: &str,
    what: &str,
    span: Span,
    source: &dyn Source,
    report: &mut Report,
) {
    let why = match source.found(path) {
        Found::Nothing => "there is no such file",
        Found::Folder => "it is a folder",
        Found::Unknown | Found::File => return,
    };
    report.error(
        Kind::File,
        span,
        format!("{what}: cannot read `{path}`: {why}"),
    );
}

/// Where the access log goes to, if that is a file.
pub(super) fn check_log(log: &AccessLog, span: Span, source: &dyn Source, report: &mut Report) {
    if let LogTarget::File(path) = &log.to {
        check_written(path, "the access log", span, source, report);
    }
}

/// The Unix sockets among the addresses.
pub(super) fn check_sockets(binds: &[PlacedBind], source: &dyn Source, report: &mut Report) {
    for placed in binds {
        if let Bind::Unix(path) = &placed.bind {
            check_written(path, "the socket", placed.span, source, report);
        }
    }
}
