//! Names the CPU features that a saved machine relies on and this host lacks.

use kvm_bindings::kvm_cpuid_entry2;

/// A feature word of CPUID: leaf, subleaf, register and the names of its bits, from bit 0, as
/// Linux spells them; an empty name is a bit that does not matter to running code.
struct Word {
    leaf: u32,
    subleaf: u32,
    register: fn(&kvm_cpuid_entry2) -> u32,
    names: &'static str,
}

/// The words that hold what user space and kernels use. `-` stands for a bit without a name.
const WORDS: &[Word] = &[
    Word {
        leaf: 1,
        subleaf: 0,
        register: |entry| entry.ecx,
        names: "pni pclmulqdq - - - - - - - ssse3 - - fma cx16 - - - pcid - sse4_1 sse4_2 x2apic \
                movbe popcnt tsc_deadline_timer aes xsave - avx f16c rdrand -",
    },
    Word {
        leaf: 1,
        subleaf: 0,
        register: |entry| entry.edx,
        names: "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 - \
                clflush - - - mmx fxsr sse sse2 ss - - - -",
    },
    Word {
        leaf: 7,
        subleaf: 0,
        register: |entry| entry.ebx,
        names: "fsgsbase tsc_adjust - bmi1 hle avx2 - smep bmi2 erms invpcid rtm - - - - avx512f \
                avx512dq rdseed adx smap avx512ifma - clflushopt clwb - avx512pf avx512er \
                avx512cd sha_ni avx512bw avx512vl",
    },
    Word {
        leaf: 7,
        subleaf: 0,
        register: |entry| entry.ecx,
        names: "- avx512vbmi umip pku - waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni \
                avx512_bitalg - avx512_vpopcntdq - la57 - - - - - rdpid - - cldemote - movdiri \
                movdir64b - - -",
    },
    Word {
        leaf: 7,
        subleaf: 0,
        register: |entry| entry.edx,
        names: "- - - - fsrm - - - - - - - - - serialize - - - - - - - amx_bf16 avx512_fp16 \
                amx_tile amx_int8 - - - - - -",
    },
    Word {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: |entry| entry.ecx,
        names: "lahf_lm - - - cr8_legacy abm sse4a misalignsse 3dnowprefetch - - xop - - - - \
                fma4 - - - - tbm - - - - - - - - - -",
    },
    Word {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: |entry| entry.edx,
        names: "- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr_opt pdpe1gb \
                rdtscp - lm - -",
    },
];

/// The names of the features in `saved` that are not in `host`.
pub(super) fn missing(saved: &[kvm_cpuid_entry2], host: &[kvm_cpuid_entry2]) -> Vec<String> {
    let word = |entries: &[kvm_cpuid_entry2], word: &Word| {
        entries
            .iter()
            .find(|entry| entry.function == word.leaf && entry.index == word.subleaf)
            .map_or(0, word.register)
    };
    let mut names = Vec::new();
    for description in WORDS {
        let lost = word(saved, description) & !word(host, description);
        let bits = description.names.split_whitespace().enumerate();
        names.extend(
            bits.filter(|(bit, name)| *name != "-" && lost & 1 << bit != 0)
                .map(|(_, name)| name.to_owned()),
        );
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_all_its_bits() {
        for word in WORDS {
            assert_eq!(word.names.split_whitespace().count(), 32, "{}", word.names);
        }
    }

    /// `ht` says that there are several processors, whatever the host's are.
    #[test]
    fn the_number_of_processors_is_no_feature() {
        let template = kvm_bindings::CpuId::from_entries(&[
            kvm_cpuid_entry2 { function: 1, ..Default::default() },
            kvm_cpuid_entry2 { function: 0x8000_0001, ecx: 1 << 22, ..Default::default() },
        ])
        .unwrap();
        for count in [1, 2, 5] {
            let vcpu = crate::boot::cpuid::for_vcpu(&template, 0, count);
            assert_eq!(missing(vcpu.as_slice(), template.as_slice()), Vec::<String>::new());
        }
    }

    #[test]
    fn a_feature_that_is_gone_is_named() {
        let entry = |ecx| kvm_cpuid_entry2 { function: 1, ecx, ..Default::default() };
        assert_eq!(missing(&[entry(1 << 28 | 1)], &[entry(1)]), ["avx"]);
        assert_eq!(missing(&[entry(1)], &[entry(1 | 1 << 28)]), Vec::<String>::new());
    }
}
