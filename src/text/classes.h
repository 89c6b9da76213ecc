/* SPDX-License-Identifier: Apache-2.0 */
/* The table behind emo__char_class(). It is the library's own so that ids do not depend on which version of another
 * library is installed. */
#ifndef EMO_SRC_TEXT_CLASSES_H
#define EMO_SRC_TEXT_CLASSES_H

#include <stdint.h>

#define EMO__CLASS_RUNS 1610

extern const char emo__unicode_version[];
extern const uint32_t emo__class_runs[EMO__CLASS_RUNS];
extern const uint16_t emo__class_pages[257];

#endif
