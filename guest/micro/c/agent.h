/* The agent: announces itself on the control connection, and acts on frames. */
#pragma once
#include "connection.h"
#include "types.h"

/* Dials the host's agent port; tried again, ever more slowly, while nobody listens there. */
static void agent_dial(void);
static void agent_control_open(struct connection *c);
static void agent_control_lost(void);
/* The guest woke up in another life: the payload of FRAME_LIFE, which is not answered here. */
static void agent_life(const u8 *payload);
/* Sends a frame whose payload is short. Not while a command is printing. */
static void agent_reply(struct connection *c, u64 id, u32 kind, const void *payload, u32 length);
/* A whole frame on a control or command connection. */
static void agent_frame(struct connection *c, u32 kind, u64 id, const u8 *payload, u32 length);
