/* Files: values of the store under their paths. There are no directories, and a file is at most
 * FILE_MAX bytes long. */
#pragma once
#include "connection.h"
#include "types.h"

/* Takes a frame about files for a command connection: FRAME_STORE, FRAME_FETCH, FRAME_STORE_…. */
static void file_frame(struct connection *c, u32 kind, u64 id, const u8 *payload, u32 length);
/* Starts to print a file's bytes: a command's argument[] and block; false when there is none. */
static bool file_open(struct connection *c, const u8 *path, u64 length);
/* Prints the next piece of it, as c->produce. */
static bool produce_contents(struct connection *c);
