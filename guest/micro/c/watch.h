/* What the host waits for: ports of `echo-server`, and names that `ready` declares. */
#pragma once
#include "connection.h"
#include "types.h"

/* FRAME_WATCH on the control connection. */
static void watch_begin(struct connection *c, u64 id, const u8 *payload, u32 length);
/* FRAME_UNWATCH: the host lost interest. */
static void watch_end(u64 id);
/* Somebody listens on a port now. */
static void watch_opened(void);
/* The control connection is gone. */
static void watch_forget(void);

/* The longest name that can be declared, in bytes. */
#define READY_LENGTH 63
/* Declares a name; again is no error. False when there are too many. Not while a command is
 * printing: it may answer on the control connection. */
static bool ready_declare(const u8 *name, u64 length);
