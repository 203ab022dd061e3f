/* virtio block device (virtio 1.3 section 5.2): sectors to and from a block of memory. */
#pragma once
#include "types.h"

#define SECTOR_SIZE 512

/* What to call when a request is done; `ok` tells whether the device carried it out. */
typedef void block_done(void *context, u8 *data, bool ok);

/* Remembers the device; it is set up when it is first used. */
static void block_found(u64 base);
static bool block_present(void);
/* The device's size in sectors. */
static u64 block_capacity(void);
/* Starts a transfer; false when too many are under way. */
static bool block_transfer(bool write, u64 sector, u8 *data, u64 bytes, block_done *done,
                           void *context);
/* The context is gone: its requests under way will be reported with NULL. */
static void block_forget(void *context);
static void block_interrupt(void);
