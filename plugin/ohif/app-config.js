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

/** A point inside of the region, near its left side and a `share` of its height down, in OHIF's world coordinates. */
function placeIn({ GraphicData, ReferencedSOPSequence }, share) {
  const uid = first(ReferencedSOPSequence).ReferencedSOPInstanceUID;
  const images = window.services.displaySetService.activeDisplaySets.flatMap(each => each.images ?? []);
  const imageId = images.find(image => image.SOPInstanceUID === uid)?.imageId;
  if (!imageId) {
    return undefined;
  }
  const columns = GraphicData.filter((_, index) => index % 2 === 0);
  const rows = GraphicData.filter((_, index) => index % 2 === 1);
  const [left, right, top, bottom] = [Math.min(...columns), Math.max(...columns), Math.min(...rows), Math.max(...rows)];
  const inside = [left + 0.03 * (right - left), top + share * (bottom - top)];
  return window.cornerstone.utilities.imageToWorldCoords(imageId, inside);
}

/** OHIF calls this for each group and each series, more than once. Other people's reports stay as they are. */
function overlay({ measurement, SeriesInstanceUID }) {
  const groups = groupsOf(ownReport(SeriesInstanceUID)?.instance ?? {});
  const group = groups.find(each => trackingOf(each) === measurement.TrackingUniqueIdentifier);
  if (!group || !(isRefusal(group) || isGrade(group)) || measurement.coords[0]?.ValueType !== 'SCOORD') {
    return measurement;
  }
  const lines = isRefusal(group) ? refusal(group) : knee(group);
  const [mark, use] = meaning(group, 'USE').split(/ - (?=NOT )/); // "AI - RESEARCH", "NOT FOR DIAGNOSIS"
  measurement.labels = [...lines, [mark, use]].map(([label, value]) => ({ label, value }));
  // Refusals have the outline of the whole image: the second stands below the first.
  const before = isRefusal(group) ? groups.filter(isRefusal).indexOf(group) % 6 : 0;
  const worldPosition = placeIn(measurement.coords[0], 0.04 + 0.15 * before);
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
      '*': { 'studyBrowser.thumbnailDoubleClickCallback': { callbacks: { $unshift: [asTextWithoutRegions] } } },
    },
  },
};
