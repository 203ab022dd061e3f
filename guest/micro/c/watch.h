/* What the host waits for: ports of `echo-server`. */
#pragma once
#include "connection.h"
#include "types.h"

/* FRAME_WATCH on the control connection. */
static void watch_begin(struct connection *c, u64 id, const u8 *payload, u32 length);
/* FRAME_UNWATCH: the host lost interest. */
static void watch_end(u64 id);
/* Somebody listens on a port now. */
static void watch_opened(u32 port);
/* The control connection is gone. */
static void watch_forget(void);
