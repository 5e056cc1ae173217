// OHIF 3.13 in front of an Orthanc at the same origin; served as /app-config.js in place of the file that OHIF ships.
// For your own OHIF take `overlay`, `doNotTrack` and `customizationService` along: docs/viewer.md says why.

// ---- a report's overlay
// OHIF draws the first five numbers of a measurement group at the right of its region. The side, the grade and the
// reason of a refusal are codes and texts, which it leaves out; and of two knees on a film, the numbers of one lie over
// the other. So for Genu's reports the lines are made of the report itself and stand inside of the knee's own region.

const MOST_LINES = 5; // of OHIF's text box
const LINE_LENGTH = 60;

const items = sequence => (sequence ? [].concat(sequence) : []);
const first = sequence => items(sequence)[0] ?? {};
const named = (group, value) => items(group.ContentSequence).filter(item => first(item.ConceptNameCodeSequence).CodeValue === value);
const meaning = (group, value) => first(named(group, value)[0]?.ConceptCodeSequence).CodeMeaning ?? '';
const number = (group, value) => Number(first(named(group, value)[0]?.MeasuredValueSequence).NumericValue).toFixed(2);
const text = (group, value) => named(group, value)[0]?.TextValue ?? '';

/** The display set of our report with this series, or undefined. */
function ownReport(seriesUID) {
  const { displaySetService } = window.services;
  const found = displaySetService.getDisplaySetsForSeries(seriesUID) ?? [];
  return found.find(each => each.instance?.Manufacturer === 'Genu');
}

/** The measurement groups (125007) of Imaging Measurements (126010). */
const groupsOf = report => named(report, '126010').flatMap(part => named(part, '125007'));
const trackingOf = group => named(group, '112040')[0]?.UID;
const isRefusal = group => named(group, 'REFUSAL').length > 0;
const isGrade = group => named(group, 'KL-GRADE').length > 0;
const isOutcome = group => named(group, 'OUTCOME-ORIGIN').length > 0;

/** Short lines, for the box of a knee is narrow on a film of both: [label, value] each. */
function knee(group) {
  const probabilities = [0, 1, 2, 3, 4].map(grade => number(group, `KL-P${grade}`));
  const lines = [
    [text(group, '112039'), meaning(group, 'KL-GRADE').replace('Kellgren-Lawrence grade', 'KL')],
    ['P(KL 0-4)', probabilities.join(' ')],
    ['Expected KL', number(group, 'KL-EXPECTED')],
  ];
  const kind = first(named(group, 'MODEL-KIND')[0]?.ConceptCodeSequence);
  return kind.CodeValue === 'MODEL-SYNTH' ? [...lines, ['Model', kind.CodeMeaning]] : lines;
}

/** Of a knee on an MR series: OHIF's text box has five lines. */
function outcome(group) {
  const probability = items(group.ContentSequence).find(item => item.ValueType === 'NUM');
  const value = Number(first(probability.MeasuredValueSequence).NumericValue).toFixed(2);
  const [low, high] = [number(group, 'OUTCOME-LOW'), number(group, 'OUTCOME-HIGH')];
  const kind = first(named(group, 'MODEL-KIND')[0]?.ConceptCodeSequence);
  const decision = meaning(group, 'OUTCOME-DECISION');
  return [
    [text(group, '112039'), `${value} (${low} to ${high})`],
    [first(probability.ConceptNameCodeSequence).CodeMeaning, meaning(group, 'OUTCOME-ORIGIN')],
    ...(decision ? [[`Threshold ${number(group, 'OUTCOME-CUT')}`, decision]] : []),
    ...(kind.CodeValue === 'MODEL-SYNTH' ? [['Model', kind.CodeMeaning]] : []),
  ];
}

function refusal(group) {
  const [what, reason] = [text(group, '112039'), meaning(group, 'REFUSAL')];
  const rows = wrapped(text(group, 'REFUSAL-TEXT').replace(`${what}. ${reason}: `, ''));
  const label = index => (rows.length > 1 ? `Reason (${index + 1}/${rows.length})` : 'Reason');
  return [[what, reason], ...rows.slice(0, MOST_LINES - 2).map((row, index) => [label(index), row])];
}

function wrapped(sentence) {
  const rows = [''];
  for (const word of sentence.split(' ')) {
    if (rows.at(-1).length + word.length > LINE_LENGTH) {
      rows.push('');
    }
    rows.push(`${rows.pop()} ${word}`.trim());
  }
  return rows;
}

/** OHIF's name of the image of a region. */
function imageOf({ ReferencedSOPSequence }) {
  const uid = first(ReferencedSOPSequence).ReferencedSOPInstanceUID;
  const images = window.services.displaySetService.activeDisplaySets.flatMap(each => each.images ?? []);
  return images.find(image => image.SOPInstanceUID === uid);
}

/** A point inside of the region, near its left side and a `share` of its height down, in OHIF's world coordinates. */
function placeIn({ GraphicData, ...region }, share) {
  const imageId = imageOf(region)?.imageId;
  if (!imageId) {
    return undefined;
  }
  const columns = GraphicData.filter((_, index) => index % 2 === 0);
  const rows = GraphicData.filter((_, index) => index % 2 === 1);
  const [left, right, top, bottom] = [Math.min(...columns), Math.max(...columns), Math.min(...rows), Math.max(...rows)];
  const inside = [left + 0.03 * (right - left), top + share * (bottom - top)];
  return window.cornerstone.utilities.imageToWorldCoords(imageId, inside);
}

/** The outline of the image of a region, which itself is too small for words on a slice. */
function wholeOf(region) {
  const { Rows, Columns } = imageOf(region) ?? {};
  return { ...region, GraphicData: [0, 0, Columns ?? 0, 0, Columns ?? 0, Rows ?? 0, 0, Rows ?? 0] };
}

function linesOf(group) {
  const kinds = [[isRefusal, refusal], [isGrade, knee], [isOutcome, outcome]];
  return kinds.find(([is]) => is(group))?.[1](group);
}

/** OHIF calls this for each group and each series, more than once. Other people's reports stay as they are. */
function overlay({ measurement, SeriesInstanceUID }) {
  const groups = groupsOf(ownReport(SeriesInstanceUID)?.instance ?? {});
  const group = groups.find(each => trackingOf(each) === measurement.TrackingUniqueIdentifier);
  const lines = group && linesOf(group);
  if (!lines || measurement.coords[0]?.ValueType !== 'SCOORD') {
    return measurement;
  }
  const [mark, use] = meaning(group, 'USE').split(/ - (?=NOT )/); // "AI - RESEARCH", "NOT FOR DIAGNOSIS"
  measurement.labels = [...lines, [mark, use]].map(([label, value]) => ({ label, value }));
  // Refusals have the outline of the whole image: the second stands below the first.
  const before = isRefusal(group) ? groups.filter(isRefusal).indexOf(group) % 6 : 0;
  const worldPosition = isOutcome(group)
    ? placeIn(wholeOf(measurement.coords[0]), 0.02 + 0.2 * (groups.filter(isOutcome).indexOf(group) % 5))
    : placeIn(measurement.coords[0], 0.04 + 0.15 * before);
  if (worldPosition) {
    measurement.textBox = { worldPosition };
  }
  const { style } = window.cornerstoneTools.annotation.config;
  style.setAnnotationStyles(measurement.TrackingUniqueIdentifier, { textBoxBackground: 'rgba(0, 0, 0, 0.7)' });
  return measurement;
}

// ---- what OHIF should not do with a report
// It asks whether to take the regions over as measurements of the user's own, and would measure areas in them.

function doNotTrack(_services, _context, { viewportId, displaySetInstanceUID }) {
  const report = window.services.displaySetService.getDisplaySetByUID(displaySetInstanceUID);
  const CANCEL = 0;
  return Promise.resolve({
    userResponse: CANCEL,
    displaySetInstanceUID,
    srSeriesInstanceUID: report?.SeriesInstanceUID,
    viewportId,
  });
}

// ---- a report of refusals that belong to no image
// OHIF takes every Imaging Measurement Report for regions on images, and shows a black viewport where there is none.
// As a report of another kind it is shown as text.

const asTextWithoutRegions = () => displaySetInstanceUID => {
  const report = window.services.displaySetService.getDisplaySetByUID(displaySetInstanceUID);
  if (report?.instance?.Manufacturer === 'Genu' && report.Modality === 'SR' && groupsOf(report.instance).length === 0) {
    report.isImagingMeasurementReport = false;
  }
};

// ---- regions on slices
// The slices of a series are there before OHIF knows which regions to draw, and it does not draw them once it does.

const drawnSoon = () => displaySetInstanceUID => {
  const report = window.services.displaySetService.getDisplaySetByUID(displaySetInstanceUID);
  if (report?.instance?.Manufacturer !== 'Genu' || report.Modality !== 'SR') {
    return;
  }
  repeated(() => {
    const viewports = window.cornerstone.getEnabledElements().map(element => element.viewport.id);
    window.cornerstoneTools.utilities.triggerAnnotationRenderForViewportIds(viewports);
  });
};

/** Soon, and again for machines that are slow. */
function repeated(draw) {
  [500, 1000, 2000, 4000, 8000, 16000].forEach(milliseconds => setTimeout(draw, milliseconds));
}

// ---- a map of some slices of a series
// OHIF 3.13 takes the frames of a Parametric Map for all slices of its series in their order, and ends with a RangeError
// where there are fewer. Here each frame goes to the slice that it names.

const placed = () => displaySetInstanceUID => {
  const map = window.services.displaySetService.getDisplaySetByUID(displaySetInstanceUID);
  if (map?.instance?.Manufacturer === 'Genu' && map.Modality === 'PMAP' && !map.placesItself) {
    map.placesItself = true;
    map.load = () => (map.loadStatus.promise ??= loadMap(map));
  }
};

async function loadMap(map) {
  const { cache, volumeLoader } = window.cornerstone;
  const referencedVolumeId = map.getReferencedVolumeId();
  const { imageIds } = cache.getVolume(referencedVolumeId);
  const volumeId = `${referencedVolumeId.split(':')[0]}:${map.displaySetInstanceUID}`;
  const values = await valuesOf(map.instance);
  const size = map.instance.Rows * map.instance.Columns;
  const all = new Float32Array(imageIds.length * size);
  frameSources(map.instance).forEach((source, frame) => {
    const place = imageIds.findIndex(imageId => shows(imageId, source));
    if (place >= 0) {
      all.set(values.subarray(frame * size, (frame + 1) * size).map(value => 100 * value), place * size);
    }
  });
  const options = { volumeId, targetBuffer: { type: 'Float32Array' } };
  const volume = await volumeLoader.createAndCacheDerivedVolume(referencedVolumeId, options);
  volume.voxelManager.setCompleteScalarDataArray(all);
  volume.metadata.voiLut = [{ windowCenter: 50, windowWidth: 100 }];
  volume.loadStatus = { loaded: true };
  map.isLoaded = true;
  repeated(() => window.cornerstone.getRenderingEngines().forEach(engine => engine.render()));
  const { segmentationService } = window.services;
  segmentationService._broadcastEvent(segmentationService.EVENTS.SEGMENTATION_LOADING_COMPLETE, { pmapDisplaySet: map });
  return volume;
}

const frameSources = ({ PerFrameFunctionalGroupsSequence }) =>
  items(PerFrameFunctionalGroupsSequence).map(frame => first(first(frame.DerivationImageSequence).SourceImageSequence));

function shows(imageId, { ReferencedSOPInstanceUID, ReferencedFrameNumber }) {
  const frame = Number([].concat(ReferencedFrameNumber ?? 1)[0]);
  return imageId.includes(`/instances/${ReferencedSOPInstanceUID}/frames/`) && imageId.endsWith(`/frames/${frame}`);
}

/** The numbers of a map: the last element of its file, (7FE0,0008) OF. */
async function valuesOf({ StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, NumberOfFrames, Rows, Columns }) {
  const url = `/dicom-web/studies/${StudyInstanceUID}/series/${SeriesInstanceUID}/instances/${SOPInstanceUID}`;
  const headers = { Accept: 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1' };
  const answer = await fetch(url, { headers });
  if (!answer.ok) {
    throw new Error(`The map cannot be read: HTTP ${answer.status}`);
  }
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const length = 4 * NumberOfFrames * Rows * Columns;
  const view = new DataView(bytes.buffer);
  for (let at = bytes.length - length - 12; at >= 0; at -= 1) {
    const found = view.getUint32(at, true) === 0x00087fe0 && bytes[at + 4] === 0x4f && bytes[at + 5] === 0x46;
    if (found && view.getUint32(at + 8, true) === length) {
      return new Float32Array(bytes.slice(at + 12, at + 12 + length).buffer);
    }
  }
  throw new Error('The map holds no Float Pixel Data of its size');
}

window.config = {
  name: 'genu',
  routerBasename: null,
  extensions: [],
  modes: [],
  showStudyList: true,
  maxNumberOfWebWorkers: 3,
  showWarningMessageForCrossOrigin: true,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
  // "For investigational use only", in every session anew.
  investigationalUseDialog: { option: 'always' },
  defaultDataSourceName: 'orthanc',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'orthanc',
      configuration: {
        friendlyName: 'Orthanc',
        name: 'orthanc',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        qidoSupportsIncludeField: false,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true, relativeResolution: 'studies' },
      },
    },
  ],
  customizationService: {
    global: {
      onBeforeSRAddMeasurement: { $set: overlay },
      'measurement.promptHydrateStructuredReport': { $set: doNotTrack },
      'ohif.tours': { $set: [] }, // the tour of the first visit lies over the images
      autoCineModalities: { $set: [] }, // a heatmap is no film: no player over it
    },
    mode: {
      '*': { 'studyBrowser.thumbnailDoubleClickCallback': { callbacks: { $unshift: [asTextWithoutRegions, drawnSoon, placed] } } },
    },
  },
};
