/* What a command prints: frames, built in place in a packet's slot. A packet that is full is sent
 * and the next begun; one command prints at a time. */
#pragma once
#include "connection.h"
#include "types.h"

/* What follows goes to a connection, in frames that bear `id`. Costs nothing until it prints. */
INLINE void output_open(struct connection *c, u64 id);
/* Sends what was printed. */
static void output_send(void);
/* What follows goes to standard error (or another kind of frame). */
static void output_kind(u32 kind);
static void output_bytes(const void *bytes, u64 length);
static void output_text(const char *text);
static void output_decimal(u64 value);
static void output_hex(u64 value);
/* Prints bytes that never change, without a copy where the connection's credit allows it. Returns how
 * many were printed. Nothing else may have been printed since output_open. */
static u32 output_constant(const u8 *bytes, u32 length);
/* Adds the frame that ends a command, and sends everything. */
INLINE void output_end(u32 code, u32 signal, u64 nanoseconds);
/* Adds a whole frame; its payload is short. */
static void output_frame(u32 kind, const void *payload, u32 length);
/* Room for at least so many bytes (at most OUTPUT_PIECE), where they may be written directly; then
 * tell how many were. */
#define OUTPUT_PIECE 3968
static u8 *output_reserve(u32 length);
static void output_written(u32 length);
