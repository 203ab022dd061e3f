/* The built-in commands. */
#pragma once
#include "connection.h"
#include "types.h"

/* Runs the command in `words`; its output is open. Returns as exec.h says. */
INLINE i32 commands_run(struct connection *c);
/* Commands that wait for entropy go on. */
static void commands_entropy_arrived(void);
/* `blk …` (command_block.c). */
static i32 command_block(struct connection *c);
/* Prints a line on standard error and returns the code. */
static i32 command_fail(i32 code, const char *text);
/* The word as a number; false when there is no such word or it is none. */
static bool command_number(u32 word, u64 *value);
