/* virtio entropy device (virtio 1.3 section 5.4): asked once, at boot. */
#pragma once
#include "types.h"

/* There is a device: from here on its answer is due. */
static void entropy_found(void);
static void entropy_init(u64 base);
static void entropy_interrupt(void);
/* Whether an answer is still due. */
static bool entropy_pending(void);
