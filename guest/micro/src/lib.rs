//! The built-in guest: a freestanding C program that boots in milliseconds, even on a host whose
//! KVM emulates it instruction by instruction. It speaks the agent's protocol (`vmoon-protocol`)
//! and has drivers for the virtio devices that machines have.
//!
//! This crate only carries the program: [`IMAGE`]. What follows is the map of the program itself,
//! in `c/`; `micro.c` includes every other C file, so that the compiler sees the program whole.
//!
//! # Map
//! | file | holds |
//! | --- | --- |
//! | `entry.S`, `link.ld` | the two entries (64-bit Linux boot protocol, PVH), page tables, segments; where everything lies |
//! | `interrupts.S`, `apic.c` | vectors and their table; local APIC, its timer, I/O APIC |
//! | `boot_info.c`, `command_line.c` | what the loader says: RAM, devices, how to end |
//! | `memory_layout.c` | who owns which RAM |
//! | `clock.c`, `timers.c` | kvmclock or the time-stamp counter; deadlines |
//! | `virtio.c`, `virtio.h` | virtio-mmio and split virtqueues |
//! | `console.c`, `entropy.c`, `balloon.c`, `block.c`, `vsock.c` | a driver each |
//! | `connection.c`, `credit.c` | vsock connections and their states; what waits for the host's credit |
//! | `frame.c`, `agent.c`, `watch.c` | frames, however they are cut; what they ask for; what the host waits for |
//! | `files.c` | files for the host: values of the store |
//! | `exec.c`, `output.c` | a command from `Exec` to `Exit`; what it prints |
//! | `commands.c`, `command_block.c`, `command_random.c`, `command_store.c`, `service.c` | the commands |
//! | `touched.c`, `store.c`, `random.c` | behind `dirty` and `checksum`; `put`, `get` and `keys`; `random` |
//! | `main.c`, `power.c` | booting and the loop; the ways to end |
//!
//! # How it runs
//! Interrupts are enabled only while the processor halts. A vector sets a bit and returns; the loop
//! in `main.c` sees the bit and lets the driver work. Nothing runs while nothing happens: the timer
//! is off unless there is a deadline. Only the boot processor is used; the others are never started.
//!
//! An instruction costs up to a microsecond on an emulating host, and a register of a device ten,
//! so tables and rings are laid down by the compiler, the other devices are set up only after the
//! host was greeted, and a command's output and its end travel in one packet.
//!
//! # Command line
//! | parameter | meaning |
//! | --- | --- |
//! | `virtio_mmio.device=SIZE@BASE:GSI` | a device, as Linux writes it; of each kind the first is used |
//! | `vmoon.poweroff=ADDRESS:VALUE`, `vmoon.reset=ADDRESS:VALUE` | the byte to write to an I/O port, or above 65535 to memory; without, a triple fault |
//! | `vmoon.edge` | each notification of a device is a fresh edge even when the one before was not acknowledged; saves two accesses of registers an interrupt |
//! | `vmoon.run=WORD,WORD…` | runs a command after booting, with its output on the console |
//!
//! # Commands
//! | command | does |
//! | --- | --- |
//! | `true`, `false`, `exit [N]`, `echo WORD…` | as everywhere |
//! | `sleep MILLISECONDS` | other commands go on meanwhile |
//! | `put KEY VALUE…`, `get KEY`, `keys` | a key-value store; `get` exits 1 when there is no such key |
//! | `cat PATH` | prints a file; files are values of the store under their paths, at most 128 KiB each; there are no directories and no modes |
//! | `dirty PAGES [SEED]` | writes the first, the last and one more word of so many distinct pages, spread over the RAM that the balloon has left; pages and values follow from the seed, and without one from a count of calls |
//! | `checksum` | a hash of the store and of the words that `dirty` writes, read back from every page that it ever touched: its time follows what was touched, not the size of RAM |
//! | `meminfo` | in the format of `/proc/meminfo` |
//! | `uptime`, `date` | seconds since the machine was created; since 1970, as the host told with the last `Life` |
//! | `random BYTES` | hexadecimal digits from a generator that is seeded by the entropy device at boot and by each `Life`; between these it is repeatable; not for cryptography |
//! | `lines BYTES` | prints so many bytes of lines of 64, cheaply |
//! | `blk read SECTOR COUNT`, `blk write SECTOR HEX` | reads sectors of 512 bytes, writes bytes; at most 64 KiB; the rest of the last sector written is kept |
//! | `echo-server PORT` | echoes each connection until it is killed; prints nothing, so that its own connection is idle |
//! | `connect PORT TEXT…` | sends a line to the host and prints the line that it answers |
//! | `panic`, `hang`, `poweroff` | the ways to end |
//!
//! Pages that `dirty` has touched are in use: the balloon does not get them. Of the things that a host
//! may wait for (`Watch`) there are ports of `echo-server`, and the agent's own.
//!
//! A shell text is split at spaces, without quoting; at most 32 words, the last of which holds the
//! rest. Standard input, environment, directory, user and terminal are ignored.

/// The guest as an ELF file, to be entered in 64-bit mode as a Linux kernel is, or through its PVH
/// note; none where it cannot be built: it is for x86-64, built on Linux.
#[cfg(micro_image)]
pub const IMAGE: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/micro.elf")));

/// The guest as an ELF file: none for this target.
#[cfg(not(micro_image))]
pub const IMAGE: Option<&[u8]> = None;
