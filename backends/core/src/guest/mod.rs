//! Finds kernels and assembles initramfs images.
