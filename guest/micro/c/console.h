/* What the guest prints: to the virtio console once there is one, before that to the 16550. */
#pragma once
#include "types.h"

static void console_init(u64 base);
static void console_write(const void *text, u64 length);
