//! Third-party libraries for the other relays, installed below the target directory.
//!
//! Each has one version, pinned by its hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// Installs Node's `ws`, in the version of `tests/clients`.
pub(crate) fn install_ws() -> Result<(), String> {
    let target = create("bench-ws")?;
    run(Command::new("node").arg("--version"))?;
    copy("benches/relay/ws_relay.mjs", &target.join("ws_relay.mjs"))?;
    once("tests/clients/package-lock.json", &target, || {
        for file in ["package.json", "package-lock.json", ".npmrc"] {
            copy(&format!("tests/clients/{file}"), &target.join(file))?;
        }
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        run(Command::new("npm").args(arguments).current_dir(&target))
    })
}

/// The script's path. Node looks for packages beside the script that imports them.
pub(crate) fn ws_relay() -> PathBuf {
    directory("bench-ws").join("ws_relay.mjs")
}

/// Installs uWebSockets from PyPI's `socketify`, and compiles the relay on it.
///
/// Its event loop is the system's libuv.
pub(crate) fn install_uws() -> Result<(), String> {
    let target = create("bench-uws")?;
    let requirements = "benches/relay/uws_requirements.txt";
    once(requirements, &target, || {
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--upgrade", "--target"];
        run(Command::new("python3").args(pip).arg(&target).arg("-r").arg(Path::new(SOURCE).join(requirements)))
    })?;
    let library = target.join("socketify/libsocketify_linux_amd64.so");
    run(Command::new("c++")
        .args(["-std=c++17", "-O2", "-o"])
        .arg(uws_relay())
        .arg(Path::new(SOURCE).join("benches/relay/uws_relay.cpp"))
        .arg(&library)
        .arg("-l:libuv.so.1")
        .arg(format!("-Wl,-rpath,{}", library.with_file_name("").display())))
    .map_err(|error| format!("{error} (needs a C++ compiler and the system's libuv1)"))
}

pub(crate) fn uws_relay() -> PathBuf {
    directory("bench-uws").join("uws_relay")
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_arc-relay")).with_file_name(name)
}

fn create(name: &str) -> Result<PathBuf, String> {
    let directory = directory(name);
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory)
}

fn copy(from: &str, to: &Path) -> Result<(), String> {
    fs::copy(Path::new(SOURCE).join(from), to).map(drop).map_err(|error| format!("{from}: {error}"))
}

/// Installs the packages that `pinned` names, unless they are installed already.
fn once(pinned: &str, target: &Path, install: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let wanted = fs::read(Path::new(SOURCE).join(pinned)).map_err(|error| format!("{pinned}: {error}"))?;
    let installed = target.join("installed");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install()?;
    // Written last, so that an incomplete installation does not count.
    copy(pinned, &installed)
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("{command:?} fails")),
        Err(error) => Err(format!("{}: {error}", command.get_program().display())),
    }
}
