//! The unsafe part: affinity masks of any size and the CPU clocks of other processes, which neither
//! core_affinity nor rustix offers. A mask here has [`CPUS_MAX`] bits, where `cpu_set_t` has 1,024.

#![allow(unsafe_code)]

use std::{io, mem};

use crate::cpuset::{CPUS_MAX, CpuId, CpuSet};

const WORD_BITS: usize = u64::BITS as usize;
const MASK_BYTES: usize = CPUS_MAX as usize / 8;

/// In the kernel's layout, an array of `unsigned long` with the lowest CPU first; the two agree for
/// words of 64 bits, and of 32 on a little-endian machine.
type Mask = [u64; CPUS_MAX as usize / WORD_BITS];

const _: () = assert!(mem::size_of::<Mask>() == MASK_BYTES);
const _: () = assert!(cfg!(any(target_pointer_width = "64", target_endian = "little")));

/// The CPUs that a thread may run on now; 0 is the calling thread.
pub(crate) fn affinity(thread: libc::pid_t) -> io::Result<CpuSet> {
    let mut mask: Mask = [0; CPUS_MAX as usize / WORD_BITS];
    // SAFETY: the kernel writes at most MASK_BYTES to `mask`, which is that large and outlives the
    // call; any bits are a valid u64. Its alignment is at least that of `cpu_set_t`'s words.
    let result = unsafe { libc::sched_getaffinity(thread, MASK_BYTES, mask.as_mut_ptr().cast()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let is_set = |id: &u32| {
        let id = *id as usize;
        mask[id / WORD_BITS] >> (id % WORD_BITS) & 1 == 1
    };
    Ok((0..CPUS_MAX).filter(is_set).filter_map(|id| CpuId::new(id).ok()).collect())
}

/// Restricts the calling thread to these CPUs.
pub(crate) fn set_affinity(cpus: &CpuSet) -> io::Result<()> {
    let mut mask: Mask = [0; CPUS_MAX as usize / WORD_BITS];
    for cpu in cpus.iter() {
        mask[cpu.index() / WORD_BITS] |= 1 << (cpu.index() % WORD_BITS);
    }
    // SAFETY: the kernel reads at most MASK_BYTES from `mask`, which is that large and outlives the
    // call. Its alignment is at least that of `cpu_set_t`'s words.
    let result = unsafe { libc::sched_setaffinity(0, MASK_BYTES, mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// CPU time of a process in ns, user and system, over all its threads that live or lived.
pub(crate) fn process_cpu_time_ns(process: libc::pid_t) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place for the result, and outlives the call.
    let error = unsafe { libc::clock_getcpuclockid(process, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result, and outlives the call.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Ticks a second, the unit of times in `/proc/PID/stat`.
pub(crate) fn clock_ticks_per_second() -> u64 {
    // SAFETY: sysconf takes no pointer and has no precondition.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    // It cannot fail for this name; 100 is what Linux shows to every program.
    u64::try_from(ticks).unwrap_or(100).max(1)
}
