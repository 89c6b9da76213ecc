/* SPDX-License-Identifier: Apache-2.0 */
/* Moving a model's weights from one device's memory to another's. */
#ifndef EMO_SRC_MODEL_MOVE_H
#define EMO_SRC_MODEL_MOVE_H

#include "model/model.h"

/* Weights that are loaded go, one block on the new device; those outside the load subset stay left out. Nothing else
 * may hold the model. On a failure the model is as it was. */
EMO_MUST_CHECK emo_status emo__model_move(emo_model *model, emo_backend *backend, emo_error *err);

#endif
