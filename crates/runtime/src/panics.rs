//! What a panic of one task does to its process.

/// Exit status of a process that ended because a part of it panicked; Rust's own.
const PANICKED: i32 = 101;

/// What a panic of one task does to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPanic {
    /// Ends it. A process that lost a loop would look alive and do half of its work; once it has ended, another replica
    /// takes up what it held, and Kubernetes starts it anew.
    EndProcess,
    /// Ends the task alone: of a process whose tasks are requests, the others go on.
    EndTask,
}

impl OnPanic {
    pub(crate) fn install(self) {
        if self == Self::EndTask {
            return;
        }
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            usual(panic);
            std::process::exit(PANICKED);
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_one_task_ends_the_process() {
        const CHILD: &str = "END_ON_PANIC_CHILD";
        if std::env::var_os(CHILD).is_some() {
            OnPanic::EndProcess.install();
            let task = std::thread::spawn(|| panic!("a part of it"));
            let _ = task.join();
            std::process::exit(0); // it went on without that part
        }
        let test = std::env::current_exe().expect("this program");
        let name = "panics::tests::a_panic_of_one_task_ends_the_process";
        let output = std::process::Command::new(test)
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("the child");
        assert_eq!(output.status.code(), Some(PANICKED), "{output:?}");
    }
}
