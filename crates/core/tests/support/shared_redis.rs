//! One Redis for all tests of a binary, and a database of its own for each test. The tests of other crates use this
//! file too, by its path.
#![allow(clippy::unwrap_used)]
#![allow(clippy::zombie_processes, reason = "the shell lives as long as this process")]

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jit_core::config::RedisSettings;

/// One redis-server on a free port for all tests of this binary; it ends with them, also when they are killed.
struct Server {
    port: u16,
    _child: Mutex<Child>,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        for _ in 0..20 {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|l| l.local_addr())
                .unwrap()
                .port();
            // The shell ends the server as soon as its standard input closes, that is, with this process. One whose
            // script loops hears no SIGTERM.
            let script = format!(
                "redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly no --databases 512 >/dev/null 2>&1 \
                 & pid=$!; cat >/dev/null; kill -9 $pid"
            );
            let child = Command::new("sh")
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .spawn()
                .expect("a shell");
            for _ in 0..200 {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Server {
                        port,
                        _child: Mutex::new(child),
                    };
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        }
        panic!("redis-server did not start: run through `make test`, which installs it");
    })
}

/// Settings of an empty store: a database of its own on the shared server.
pub fn fresh_redis() -> RedisSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let database = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(database < 512, "more tests than databases");
    RedisSettings::of_url(&format!("redis://127.0.0.1:{}/{database}", server().port)).unwrap()
}
