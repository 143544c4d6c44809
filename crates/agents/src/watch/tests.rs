//! Files that change as editors, config maps and slow writers change them.

use std::fs;
use std::time::Instant;

use tokio::time::timeout;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("evenkeel-watch-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn watch(paths: &[&Path]) -> Watch {
    let mut watch = Watch::new(paths.iter().map(|path| path.to_path_buf()));
    watch.every = Duration::from_millis(20);
    watch
}

async fn told(watch: &mut Watch) -> bool {
    timeout(Duration::from_millis(500), watch.changed())
        .await
        .is_ok()
}

#[tokio::test]
async fn a_change_is_told_once() {
    let folder = Folder::new("once");
    let file = folder.0.join("a.yaml");
    fs::write(&file, "one").unwrap();
    let mut watch = watch(&[&file, &folder.0]);
    assert!(!told(&mut watch).await, "nothing has changed");
    fs::write(&file, "longer").unwrap();
    assert!(told(&mut watch).await, "written");
    assert!(!told(&mut watch).await, "once is enough");
    let other = folder.0.join("b.yaml");
    fs::write(&other, "two").unwrap();
    assert!(told(&mut watch).await, "a file came");
    fs::rename(&other, &file).unwrap();
    assert!(told(&mut watch).await, "replaced, as editors do");
    fs::remove_file(&file).unwrap();
    assert!(told(&mut watch).await, "gone");
}

#[tokio::test]
async fn a_link_that_points_elsewhere_is_a_change() {
    let folder = Folder::new("link");
    let (old, new, link) = (
        folder.0.join("old"),
        folder.0.join("new"),
        folder.0.join("link"),
    );
    fs::write(&old, "x").unwrap();
    fs::write(&new, "x").unwrap();
    std::os::unix::fs::symlink(&old, &link).unwrap();
    let mut watch = watch(&[&link]);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&new, &link).unwrap();
    assert!(told(&mut watch).await);
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_waited_for() {
    let folder = Folder::new("rest");
    let file = folder.0.join("a.yaml");
    fs::write(&file, "").unwrap();
    let mut watch = watch(&[&file]);
    watch.every = Duration::from_millis(60);
    let began = Instant::now();
    let writing = tokio::spawn(async move {
        for length in 1..12 {
            fs::write(&file, "x".repeat(length)).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    watch.changed().await;
    assert!(began.elapsed() > Duration::from_millis(200));
    writing.await.unwrap();
}

#[test]
fn a_pattern_is_watched_by_its_folder() {
    for (pattern, folder) in [
        ("conf.d/*.yaml", "conf.d"),
        ("*.yaml", "."),
        ("/etc/x/[ab].yaml", "/etc/x"),
        ("/*.yaml", "/"),
        ("/etc/*/x.yaml", "/etc"),
        ("conf.d/one.yaml", "conf.d"),
    ] {
        assert_eq!(folder_of(pattern), PathBuf::from(folder), "{pattern}");
    }
}
