/* The kernel command line: which devices there are, and how to switch the machine off. */
#pragma once
#include "types.h"

#define COMMAND_LINE_DEVICES 16

/* virtio_mmio.device=SIZE@BASE:GSI, as Linux writes it. */
struct mmio_device {
    u64 base;
    u32 gsi;
};

/* NAME=PORT:VALUE, a byte to write to an I/O port. */
struct port_write {
    u16 port;
    u8 value;
    bool given;
};

struct command_line {
    struct mmio_device devices[COMMAND_LINE_DEVICES];
    u32 device_count;
    struct port_write poweroff; /* vmoon.poweroff=PORT:VALUE */
    struct port_write reset;    /* vmoon.reset=PORT:VALUE */
    /* vmoon.edge: every notification of a device is a fresh edge, whether or not the one before
     * was acknowledged in InterruptStatus; the guest then spares the acknowledgement. */
    bool edge;
    /* vmoon.run=WORD,WORD,…: a command to run after booting, its output on the console. */
    const u8 *run;
    u32 run_length;
};

extern struct command_line command_line;

static void command_line_read(const u8 *text);
