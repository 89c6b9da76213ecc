/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EMO_CLI_DEVICE_H
#define EMO_CLI_DEVICE_H

#include "cli.h"

/* Loads the plug-in that --backend names, or the one that --device needs, found beside the program. With --dry-run
 * there need be no device. */
emo_status cli_load_backend(cli *c);

/* The absolute path of the folder that --cuda-libraries names, for the caller to free; NULL: the option is not given.
 */
emo_status cli_find_libraries(cli *c, char **out);

/* Moves a model to --device. */
emo_status cli_place_model(cli *c, emo_model *model);

#endif
