//! Pinning threads, checked before and verified after.

use std::{process, sync::OnceLock};

use core_affinity::CoreId;

use crate::{
    cpuset::{CpuId, CpuSet},
    error::HostError,
    sys,
};

/// core_affinity passes a `cpu_set_t`, and panics on a CPU beyond it.
const CORE_AFFINITY_CPUS_MAX: usize = libc::CPU_SETSIZE as usize;

/// The CPUs that this process may use: the affinity mask of its main thread, as it was the first
/// time that this was asked (every function here asks before it pins).
///
/// # Errors
/// [`HostError::Affinity`] if the kernel does not tell.
pub fn allowed() -> Result<CpuSet, HostError> {
    static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
    if let Some(cpus) = ALLOWED.get() {
        return Ok(cpus.clone());
    }
    let main_thread = libc::pid_t::try_from(process::id()).unwrap_or(0);
    let cpus = affinity(main_thread)?;
    Ok(ALLOWED.get_or_init(|| cpus).clone())
}

/// The CPUs that the calling thread may run on now.
///
/// # Errors
/// [`HostError::Affinity`] if the kernel does not tell.
pub fn current_affinity() -> Result<CpuSet, HostError> {
    affinity(0)
}

/// Pins the calling thread, and the threads and processes that it starts from now on, to one CPU.
///
/// # Errors
/// [`HostError::CpuNotAllowed`] if this process may not use that CPU, [`HostError::Affinity`] if
/// the kernel refuses, [`HostError::PinNotEffective`] if the thread then is not there. In each case
/// the thread keeps the mask that it had.
pub fn pin_current_thread(cpu: CpuId) -> Result<(), HostError> {
    pin_current_thread_to(&CpuSet::single(cpu))
}

/// Restricts the calling thread, and the threads and processes that it starts from now on, to a set
/// of CPUs.
///
/// # Errors
/// As [`pin_current_thread`], and [`HostError::EmptyCpuSet`] if there is no CPU.
pub fn pin_current_thread_to(cpus: &CpuSet) -> Result<(), HostError> {
    pin(cpus).map(drop)
}

/// Runs `body` with the calling thread restricted to these CPUs, then gives the thread back the
/// mask that it had. Threads and processes that `body` starts keep these CPUs; it runs on the
/// calling thread itself, because a child with PDEATHSIG dies with the thread that spawned it.
///
/// # Errors
/// As [`pin_current_thread_to`]; `body` has not run then.
pub fn while_pinned_to<T>(cpus: &CpuSet, body: impl FnOnce() -> T) -> Result<T, HostError> {
    let _restore = Restore { previous: pin(cpus)? };
    Ok(body())
}

/// Gives the thread back its mask, also when the body panics.
struct Restore {
    previous: CpuSet,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // Refused only if the cpuset has lost every one of these CPUs, and then the kernel has
        // moved this thread to the CPUs that are left.
        let _ = sys::set_affinity(&self.previous);
    }
}

/// Refuses CPUs that are not in `allowed`.
pub(crate) fn check_allowed(cpus: &CpuSet, allowed: &CpuSet) -> Result<(), HostError> {
    let refused = cpus.difference(allowed);
    if refused.is_empty() {
        return Ok(());
    }
    Err(HostError::CpuNotAllowed { refused: refused.to_string(), allowed: allowed.to_string() })
}

/// Pins the calling thread and returns the mask that it had.
fn pin(cpus: &CpuSet) -> Result<CpuSet, HostError> {
    if cpus.is_empty() {
        return Err(HostError::EmptyCpuSet);
    }
    check_allowed(cpus, &allowed()?)?;
    let previous = current_affinity()?;
    set(cpus)?;
    if let Err(error) = verify(cpus) {
        let _ = sys::set_affinity(&previous);
        return Err(error);
    }
    Ok(previous)
}

fn set(cpus: &CpuSet) -> Result<(), HostError> {
    match (cpus.len(), cpus.lowest()) {
        (1, Some(cpu)) if cpu.index() < CORE_AFFINITY_CPUS_MAX => {
            if core_affinity::set_for_current(CoreId { id: cpu.index() }) {
                return Ok(());
            }
            // It answers yes or no; the kernel's reason is still in errno.
            Err(refused(cpus, std::io::Error::last_os_error()))
        }
        _ => sys::set_affinity(cpus).map_err(|source| refused(cpus, source)),
    }
}

/// The mask must be exactly the wanted one: the kernel silently drops CPUs outside the cpuset. And
/// the thread must already run there, because the kernel moves it before the call returns.
fn verify(cpus: &CpuSet) -> Result<(), HostError> {
    let found = current_affinity()?;
    if found != *cpus {
        let (wanted, found) = (cpus.to_string(), found.to_string());
        return Err(HostError::PinNotEffective { wanted, found });
    }
    let running_on = rustix::thread::sched_getcpu();
    if !cpus.iter().any(|cpu| cpu.index() == running_on) {
        let (wanted, found) = (cpus.to_string(), running_on.to_string());
        return Err(HostError::PinNotEffective { wanted, found });
    }
    Ok(())
}

fn affinity(thread: libc::pid_t) -> Result<CpuSet, HostError> {
    sys::affinity(thread).map_err(|source| HostError::Affinity {
        action: "tell the CPUs of",
        cpus: if thread == 0 { "this thread".to_owned() } else { "this process".to_owned() },
        source,
    })
}

fn refused(cpus: &CpuSet, source: std::io::Error) -> HostError {
    HostError::Affinity { action: "pin this thread to CPU", cpus: cpus.to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::{panic, thread};

    use super::*;

    /// A thread of its own, so that no test inherits a mask from another.
    fn on_a_thread(body: impl FnOnce() + Send) {
        thread::scope(|scope| {
            scope.spawn(body);
        });
    }

    fn highest(cpus: &CpuSet) -> CpuId {
        cpus.iter().last().unwrap()
    }

    #[test]
    fn a_thread_can_be_pinned_to_each_allowed_cpu_in_turn() {
        on_a_thread(|| {
            for cpu in allowed().unwrap().iter() {
                pin_current_thread(cpu).unwrap();
                assert_eq!(current_affinity().unwrap(), CpuSet::single(cpu));
                assert_eq!(rustix::thread::sched_getcpu(), cpu.index());
            }
        });
    }

    #[test]
    fn a_thread_can_be_pinned_to_a_set() {
        on_a_thread(|| {
            let cpus = allowed().unwrap();
            pin_current_thread(highest(&cpus)).unwrap();
            pin_current_thread_to(&cpus).unwrap();
            assert_eq!(current_affinity().unwrap(), cpus);
        });
    }

    #[test]
    fn pinning_one_thread_leaves_the_others_and_the_allowed_set_alone() {
        let cpus = allowed().unwrap();
        on_a_thread(|| {
            pin_current_thread(highest(&cpus)).unwrap();
            assert_eq!(allowed().unwrap(), cpus);
            // It inherits the mask of one CPU, and is nevertheless free to go elsewhere.
            on_a_thread(|| pin_current_thread(cpus.lowest().unwrap()).unwrap());
            assert_eq!(current_affinity().unwrap(), CpuSet::single(highest(&cpus)));
        });
        assert_eq!(current_affinity().unwrap(), cpus);
    }

    #[test]
    fn a_cpu_that_is_not_allowed_is_refused_and_the_mask_is_kept() {
        on_a_thread(|| {
            let before = current_affinity().unwrap();
            let absent = CpuId::new(4095).unwrap();
            let refusal = pin_current_thread(absent).unwrap_err();
            assert!(matches!(refusal, HostError::CpuNotAllowed { .. }), "{refusal}");
            let refusal = pin_current_thread_to(&CpuSet::default()).unwrap_err();
            assert!(matches!(refusal, HostError::EmptyCpuSet), "{refusal}");
            assert_eq!(current_affinity().unwrap(), before);
        });
    }

    #[test]
    fn the_kernels_refusal_is_a_value() {
        on_a_thread(|| {
            let absent = CpuSet::single(CpuId::new(4095).unwrap());
            let error = set(&absent).unwrap_err();
            assert!(matches!(error, HostError::Affinity { .. }), "{error}");
            let absent = CpuSet::single(CpuId::new(1023).unwrap());
            if !allowed().unwrap().contains(absent.lowest().unwrap()) {
                let message = set(&absent).unwrap_err().to_string();
                assert!(message.contains("pin this thread to CPU 1023"), "{message}");
                assert!(message.contains("Invalid argument"), "{message}");
            }
        });
    }

    #[test]
    fn a_body_runs_pinned_and_the_mask_comes_back_even_after_a_panic() {
        on_a_thread(|| {
            let before = current_affinity().unwrap();
            let cpus = CpuSet::single(highest(&before));
            let inside = while_pinned_to(&cpus, current_affinity).unwrap().unwrap();
            assert_eq!(inside, cpus);
            assert_eq!(current_affinity().unwrap(), before);

            let outcome = panic::catch_unwind(|| while_pinned_to(&cpus, || panic!("on purpose")));
            assert!(outcome.is_err());
            assert_eq!(current_affinity().unwrap(), before);
        });
    }

    #[test]
    fn a_child_process_keeps_the_cpus_that_it_was_spawned_under() {
        on_a_thread(|| {
            let cpus = CpuSet::single(highest(&allowed().unwrap()));
            let status = while_pinned_to(&cpus, || {
                process::Command::new("cat").arg("/proc/self/status").output().unwrap()
            })
            .unwrap();
            let status = String::from_utf8(status.stdout).unwrap();
            assert!(status.contains(&format!("Cpus_allowed_list:\t{cpus}\n")), "{status}");
        });
    }
}
