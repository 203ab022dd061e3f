//! What explains, to people, how well KVM works on this host.

use std::fs;

use kvm_ioctls::{Cap, Kvm};
use vmoon_core::Fact;

/// What can be told, whether or not machines can be made.
pub(crate) fn facts() -> Vec<Fact> {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags: Vec<&str> = processors
        .lines()
        .find(|line| line.starts_with("flags"))
        .map_or_else(Vec::new, |flags| flags.split_whitespace().collect());
    let mut facts = vec![virtualization(&flags)];
    facts.extend(nested(&flags));
    if let Ok(kvm) = Kvm::new() {
        facts.push(dirty_pages(&kvm));
        facts.push(Fact::new("vCPUs", format!("at most {}", kvm.get_max_vcpus())));
    }
    facts
}

fn virtualization(flags: &[&str]) -> Fact {
    let name = "processor";
    if flags.contains(&"vmx") {
        Fact::new(name, "has VT-x")
    } else if flags.contains(&"svm") {
        Fact::new(name, "has SVM")
    } else {
        let advice = if flags.contains(&"hypervisor") {
            "this host is a virtual machine: let its own host pass virtualization through (nested \
             virtualization)"
        } else {
            "enable virtualization in the firmware"
        };
        let value = "has neither VT-x nor SVM: a KVM here emulates; the built-in guest runs, \
                     slowly, and stock Linux does not";
        Fact::with_advice(name, value, advice)
    }
}

/// Whether this host is a guest, and whether its guests may have guests.
fn nested(flags: &[&str]) -> Vec<Fact> {
    let mut facts = Vec::new();
    if flags.contains(&"hypervisor") {
        facts.push(Fact::new("this host", "is itself a virtual machine"));
    }
    for module in ["kvm_intel", "kvm_amd"] {
        if let Ok(value) = fs::read_to_string(format!("/sys/module/{module}/parameters/nested")) {
            let on = matches!(value.trim(), "Y" | "1");
            let text = if on { "guests may run guests" } else { "guests may not run guests" };
            facts.push(Fact::new("nested", format!("{text} ({module})")));
        }
    }
    facts
}

/// How the pages that a guest writes to are learnt, which is what restores cost.
fn dirty_pages(kvm: &Kvm) -> Fact {
    let ring = kvm.check_extension(Cap::DirtyLogRing);
    let others = if ring { "; the ring is there and not needed" } else { "" };
    Fact::new("dirty pages", format!("KVM_GET_DIRTY_LOG{others}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_without_virtualization_is_told_what_to_do() {
        assert_eq!(virtualization(&["fpu", "vmx"]).advice, None);
        assert_eq!(virtualization(&["svm", "hypervisor"]).advice, None);
        assert!(virtualization(&["fpu"]).advice.unwrap().contains("firmware"));
        let inside = virtualization(&["fpu", "hypervisor"]);
        assert!(inside.advice.unwrap().contains("nested virtualization"));
        assert!(nested(&["hypervisor"])[0].value.contains("virtual machine"));
    }

    #[test]
    fn this_host_has_facts() {
        assert!(facts().iter().all(|fact| !fact.value.is_empty()));
    }
}
