/* The built-in commands. */
#pragma once
#include "connection.h"
#include "types.h"

/* Commands stay out of commands_run, which is on the way of every command and needs no more registers
 * than it finds free. */
#define COMMAND static NOINLINE i32

/* Runs the command in `words`; its output is open. Returns as exec.h says. */
INLINE i32 commands_run(struct connection *c);
/* Commands that wait for entropy go on. */
static void commands_entropy_arrived(void);
/* `blk …` (command_block.c). */
static i32 command_block(struct connection *c);
/* `random N` (command_random.c). */
static i32 command_random(struct connection *c);
/* The store and its files (command_store.c). */
static i32 command_put(void);
static i32 command_get(void);
static i32 command_keys(struct connection *c);
static i32 command_cat(struct connection *c);
/* Prints a line on standard error and returns the code. */
static i32 command_fail(i32 code, const char *text);
/* The word as a number; false when there is no such word or it is none. */
static bool command_number(u32 word, u64 *value);
