/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of a plain or gzip-compressed text file (told apart by its first bytes, not by its name). */
#ifndef EMO_SRC_IO_GZIP_H
#define EMO_SRC_IO_GZIP_H

#include <stdbool.h>

#include "base/memory.h"

typedef struct emo__lines emo__lines;

#define EMO__LINE_MAX ((size_t)1 << 30)

/* max_line 0: EMO__LINE_MAX. */
EMO_MUST_CHECK emo_status emo__lines_open(const emo__mem *mem, const char *path, size_t max_line, emo__lines **out,
                                          emo_error *err);
/* The next line without its end ("\n" or "\r\n"), valid until the next call; *end is true after the last one. A
 * truncated or damaged gzip stream is EMO_E_FORMAT, a line above the limit EMO_E_LIMIT. */
EMO_MUST_CHECK emo_status emo__lines_next(emo__lines *lines, const char **line, size_t *length, bool *end,
                                          emo_error *err);
/* All that is left, as it is (line ends too), up to max_line bytes; valid until the next call. */
EMO_MUST_CHECK emo_status emo__lines_rest(emo__lines *lines, const char **text, size_t *length, emo_error *err);
uint64_t emo__lines_offset(const emo__lines *lines); /* bytes of the file read so far */
uint64_t emo__lines_number(const emo__lines *lines); /* of the line returned last, from 1 */
void emo__lines_close(emo__lines *lines);

#endif
