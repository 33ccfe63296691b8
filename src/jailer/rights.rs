//! Giving up rights, in the order the kernel asks for.

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::fault::{Fault, Step};

/// The last capability the kernel may know; asking for more is refused, and then all are gone.
const LAST_CAPABILITY: u32 = 63;

/// Becomes this user for good: no groups, no capabilities but `kept`, nothing to be had from a later exec.
pub fn drop_to(uid: u32, gid: u32, kept: CapabilitySet) -> Result<(), Fault> {
    for number in 0..=LAST_CAPABILITY {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(capability) && rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    clear_ambient_capability_set().step("clear the ambient capabilities")?;
    // Without this the change of uid clears the permitted set, `kept` included.
    set_keep_capabilities(!kept.is_empty()).step("keep capabilities over a change of uid")?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[]).step("drop the supplementary groups")?;
    set_thread_res_gid(gid, gid, gid).step("change the group")?;
    set_thread_res_uid(uid, uid, uid).step("change the user")?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets).step("drop the capabilities")?;
    for capability in kept.iter() {
        configure_capability_in_ambient_set(capability, true).step("keep a capability over exec")?;
    }
    set_no_new_privs(true).step("set no_new_privs")
}
