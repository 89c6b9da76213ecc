/* SPDX-License-Identifier: Apache-2.0 */
/* What `emo train` adds to a config.json that leaves the tokenizer's numbers out. */
#ifndef EMO_CLI_CONFIG_H
#define EMO_CLI_CONFIG_H

#include <stddef.h>
#include <stdint.h>

/* True when the outermost object of a JSON text has the key with a value other than null. Malformed text: unspecified
 * but safe; the library judges it. */
int config_has(const char *text, const char *key);

/*
 * A copy of the text with vocab_size, eos_token_id and pad_token_id put in where they are missing (eos < 0: only the
 * first). The caller frees it; NULL without memory. Text that does not begin with an object is copied as it is.
 */
char *config_complete(const char *text, int32_t vocab, int32_t eos);

#endif
