/* virtio memory balloon (virtio 1.3 section 5.5). Pages are given from the top of the page region
 * downward and taken back in the opposite order; those that `dirty` has touched are in use and are
 * not given, even if the device then gets fewer than it wants. */
#pragma once
#include "types.h"

static void balloon_init(u64 base);
static void balloon_interrupt(void);
/* Pages in the balloon. */
static u64 balloon_pages(void);
