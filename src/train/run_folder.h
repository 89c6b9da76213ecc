/* SPDX-License-Identifier: Apache-2.0 */
/* What writing and resuming a run folder share. */
#ifndef EMO_SRC_TRAIN_RUN_FOLDER_H
#define EMO_SRC_TRAIN_RUN_FOLDER_H

#include "train/trainer.h"

/* A checkpoint's folder begins so until it is complete. */
#define EMO__WRITING "writing-"

/* N of "step-N"; -1 for any other name. */
int64_t emo__checkpoint_step(const char *name);

#endif
