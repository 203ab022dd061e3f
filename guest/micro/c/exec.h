/* Commands from FRAME_EXEC to FRAME_EXIT. A command returns its exit code, or one of the values
 * below when it goes on after its function has returned. */
#pragma once
#include "connection.h"
#include "types.h"

enum {
    EXEC_PENDING = -1,   /* exec_finish will be called */
    EXEC_PRODUCING = -2, /* c->produce prints, piece by piece, when there is room */
};

/* A word of the command; it points into the frame. */
struct word {
    const u8 *text;
    u64 length;
};
#define WORDS 32
/* The command being started. The last of WORDS words of a shell text holds all the rest. */
extern struct word words[WORDS];
extern u32 word_count;

static void exec_run(struct connection *c, u64 id, const u8 *payload, u32 length);
/* Goes on with EXEC_PRODUCE while there is credit. */
static void exec_pump(struct connection *c);
/* Ends a command that was pending. exec_print first begins its last output. */
static void exec_print(struct connection *c);
static void exec_finish(struct connection *c, u32 code);
/* Ends it by a signal. */
static void exec_kill(struct connection *c, u32 signal);
/* Its connection is gone. */
static void exec_abandon(struct connection *c);
